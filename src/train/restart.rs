//! Starts that have not got far enough, and new ones.

use super::Trainer;
use super::ahead::{Moment, Start};
use crate::checkpoint::Checkpoint;
use crate::config::Threshold;
use crate::display::Display;
use crate::metrics::{Score, shown};
use crate::progress::Progress;
use crate::run::Run;
use anyhow::Result;

impl Trainer {
    /// What must have been reached by this update.
    pub(super) fn threshold_due(&self) -> Option<Threshold> {
        let (step, solved) = (self.progress.step_of_start(), &self.recipe.solved.threshold);
        self.recipe.training.restart.asks(step, self.recipe.updates(), solved).cloned()
    }

    /// Whether the run may begin anew. A start that has been solved is kept.
    pub(super) fn may_restart(&self) -> bool {
        self.progress.restarts < self.recipe.training.restart.times() && self.progress.solved.is_none()
    }

    /// Why a start with these scores is given up; none if it goes on.
    pub(super) fn why_given_up(&self, wanted: Option<&Threshold>, scores: &[Score]) -> Option<String> {
        let wanted = wanted.filter(|_| self.may_restart())?;
        if wanted.by(scores) {
            let unconfirmed = self.finished() && self.recipe.training.restart.until_solved();
            return unconfirmed.then(|| "not confirmed by more sequences".to_string());
        }
        let Threshold { metric, at_most } = wanted;
        let worst = scores.iter().max_by(|a, b| metric.of(a).total_cmp(&metric.of(b)))?;
        let value = shown(&metric.to_string(), metric.of(worst));
        Some(format!("{} {value}{}, more than {at_most}", metric.said(scores), worst.point.place()))
    }

    /// Whether this start may still fall short.
    pub(super) fn may_be_given_up(&self) -> bool {
        self.may_restart()
            && self.recipe.training.restart.asks_after(self.progress.step_of_start(), self.recipe.updates())
    }

    /// Begins anew from other weights, to be saved by the caller; where that start has been trained ahead, and those
    /// after it, from the first of them that has not been given up. Updates and sequences are counted on; `best` is
    /// still the machine in its file.
    pub(super) fn restart(&mut self, mut run: Option<&mut Run>, display: &mut Display, why: &str) -> Result<()> {
        let mut given_up = Some(why.to_string());
        while let Some(why) = given_up {
            let start = self.progress.restarts + 1;
            self.begin(start, run.as_deref_mut(), display, &why)?;
            let ahead = self.ahead.as_ref().and_then(|ahead| ahead.take(start));
            given_up = ahead.map_or(Ok(None), |ahead| self.adopt(ahead, run.as_deref_mut(), display))?;
        }
        Ok(())
    }

    /// Begins start number `start`.
    fn begin(&mut self, start: u32, run: Option<&mut Run>, display: &mut Display, why: &str) -> Result<()> {
        let theta = self.layout.initial_theta_of(self.recipe.training.seed, start);
        self.optimizer.reset();
        self.load_weights(&theta, &[]);
        let Progress { step, sequences, seconds, best, .. } = std::mem::take(&mut self.progress);
        let begun = Progress { restarts: start, given_up: step, ..Progress::default() };
        self.progress = Progress { step, sequences, seconds, best, ..begun };
        let said =
            format!("{why}: beginning anew, restart {start} of at most {}", self.recipe.training.restart.times());
        display.line(&said);
        display.expect(self.progress.expected(&self.recipe));
        self.group.wait_for_leader(run.map_or(Ok(()), |run| run.log_restart(step, &said)))
    }

    /// Goes on from where the start that has just begun stands, which was trained ahead, and logs what has happened
    /// there. Why it was given up, if it was.
    fn adopt(&mut self, ahead: Start, mut run: Option<&mut Run>, display: &mut Display) -> Result<Option<String>> {
        let begun = self.progress.clone();
        let mut given_up = None;
        for Moment { mut happened, progress, evaluated } in ahead.happened {
            self.progress = progress.rebased_onto(&begun);
            if let Some(report) = &mut happened.report {
                let Progress { step, sequences, seconds, .. } = self.progress;
                (report.step, report.sequences, report.seconds) = (step, sequences, seconds);
            }
            if let Some(run) = run.as_deref_mut() {
                self.log_of(run, display, &happened, evaluated.as_ref())?;
            }
            given_up = happened.given_up;
        }
        self.load_weights(&ahead.now.theta, &ahead.now.optimizer);
        self.progress = ahead.now.progress.rebased_onto(&begun);
        let is_best = |Checkpoint { progress, .. }: &Checkpoint| {
            progress.best.as_ref().is_some_and(|this| progress.is_best(this, begun.best.as_ref(), &self.recipe))
        };
        self.progress.best = match ahead.best.filter(is_best) {
            None => begun.best,
            Some(best) => {
                let best = Checkpoint { progress: best.progress.rebased_onto(&begun), ..best };
                run.map_or(Ok(()), |run| best.save(&run.best()))?;
                best.progress.best
            }
        };
        Ok(given_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Recipe;
    use crate::progress::TrainedBy;
    use crate::train::testing::trainer;
    use tch::Tensor;

    #[test]
    fn what_solves_a_run_may_have_to_be_confirmed_by_more_sequences() {
        // one sequence costs more or less than another: a bound between the two is met by one of them alone
        let bound = |at_most: f64, confirm: usize| {
            let text = format!(
                r#"{{"task": {{"width": 3, "max_length": 4}}, "model": {{"memory": {{"rows": 5, "width": 4}}, "controller": {{"hidden": 6}}}},
                "training": {{"sequences": 1, "restart": {{"kind": "unless", "at_most": 1e6, "metric": "loss_bits", "until_solved": true}}}},
                "evaluation": {{"lengths": [4], "sequences": 1}},
                "solved": {{"metric": "loss_bits", "at_most": {at_most}, "confirm": {confirm}}}}}"#
            );
            let mut trainer = trainer(&text);
            let scores = trainer.evaluate().unwrap().0;
            trainer.progress.step = 1; // the end of the start
            let given_up = trainer.why_given_up(trainer.threshold_due().as_ref(), &scores);
            (trainer.progress.solved.is_some(), given_up, scores[0].figures.loss())
        };
        let (solved, given_up, loss) = bound(1e6, 0);
        assert_eq!((solved, given_up), (true, None));
        let costs = [1, 40].map(|confirm| (0..60).find(|i| bound(loss + *i as f64 * 0.05, confirm).0));
        assert_ne!(costs[0], costs[1], "other sequences are drawn, and as many as asked for");
        let unconfirmed = [1, 40].map(|confirm| bound(loss, confirm)).into_iter().find(|(solved, ..)| !solved);
        let (_, why, _) = unconfirmed.expect("the bound is met by the first sequence alone");
        assert_eq!(why.as_deref(), Some("not confirmed by more sequences"));
    }

    #[test]
    fn each_hundred_of_those_that_confirm_must_be_within_the_bound() {
        let recipe = |at_most: f64| {
            format!(
                r#"{{"task": {{"width": 3, "max_length": 4}}, "model": {{"memory": {{"rows": 5, "width": 4}}, "controller": {{"hidden": 6}}}},
                "evaluation": {{"lengths": [4], "sequences": 1}},
                "solved": {{"metric": "loss_bits", "at_most": {at_most}, "confirm": 250}}}}"#
            )
        };
        let points = crate::tasks::points(&Recipe::parse(&recipe(0.0), &[]).unwrap().evaluation.grid);
        let round = |round: u64, count| {
            trainer(&recipe(0.0)).scores(&points, count, u64::MAX - round).unwrap()[0].figures.loss()
        };
        let rounds = [round(0, 100), round(1, 100), round(2, 50)];
        let [least, most] = [f64::min, f64::max].map(|of| rounds.into_iter().reduce(of).unwrap());
        assert!(most > least);
        assert!(trainer(&recipe(most)).confirmed(&points).unwrap());
        assert!(!trainer(&recipe((least + most) / 2.0)).confirmed(&points).unwrap());
    }

    #[test]
    fn curriculum_and_optimizer_begin_anew_too_from_other_weights() {
        let text = r#"{"task": {"width": 3, "max_length": 9}, "model": {"memory": {"rows": 5, "width": 4}, "controller": {"hidden": 6}},
            "training": {"sequences": 40, "curriculum": {"kind": "grow", "over": 1.0}, "clip": {"kind": "none"},
            "optimizer": {"kind": "adam", "learning_rate": 0.01}, "restart": {"kind": "unless", "times": 1}}}"#;
        let mut trainer = trainer(text);
        let first = trainer.checkpoint().theta;
        for _ in 0..30 {
            trainer.update().unwrap();
        }
        trainer.restart(None, &mut Display::Silent, "so that it does").unwrap();
        assert!(!trainer.may_restart());
        let Checkpoint { theta: start, progress, .. } = trainer.checkpoint();
        assert_eq!(progress.trained_by, TrainedBy::default(), "fused on the CPU");
        assert_ne!(start, first);
        trainer.update().unwrap();
        assert_eq!((trainer.progress.step, trainer.progress.step_of_start()), (31, 1));
        assert_eq!(trainer.progress.window.totals.values, 3, "one vector of 3 bits, the least that there is");
        let step = (&trainer.theta - Tensor::from_slice(&start)).abs().max().double_value(&[]);
        assert!((step - 0.01).abs() < 1e-4, "Adam's first step is the learning rate, this was {step}");
    }
}
