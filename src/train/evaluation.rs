//! Evaluation: while training, and of a machine alone.

use super::{Happened, NotFinite, Trainer, host};
use crate::display::Display;
use crate::distributed::Group;
use crate::engine::Engine;
use crate::metrics::{Score, Totals};
use crate::progress::{Best, SolvedAt};
use crate::replay::{Memory, Shape};
use crate::run::Run;
use crate::tasks::{Point, Scoring, Source, points};
use crate::tensorboard::Look;
use anyhow::Result;
use tch::Tensor;

/// The sequences that evaluation during training draws; `ntm eval` starts from another seed.
const EVALUATION_SEED: u64 = 0;
/// Those that confirm one, in rounds of so many, each with the seed before.
const CONFIRMATION_SEED: u64 = u64::MAX;
const CONFIRMATION_ROUND: usize = 100;
/// Sequences of one evaluation batch, and steps of all of them together, so that long ones do not fill the memory.
const EVALUATION_BATCH: usize = 20;
const EVALUATION_STEPS: usize = 100_000;
/// The most steps of a sequence that is looked at, and the most weights of all its weightings.
const LOOK_STEPS: usize = 640;
const LOOK_WEIGHTS: usize = 1 << 24;

/// Mean cost and errors of `sequences` evaluation sequences at each point, the batches dealt out to the ranks of a group. `done` is
/// told of the sequences that have been gone through.
#[allow(clippy::too_many_arguments)]
pub fn evaluate(
    group: &Group,
    engine: &mut dyn Engine,
    theta: &Tensor,
    source: &mut Source,
    points: &[Point],
    sequences: usize,
    seed: u64,
    done: impl Fn(usize),
) -> Result<Vec<Score>> {
    let scoring = source.task.scoring();
    let sequences = source.evaluation_count(sequences);
    let mut sums = vec![];
    let mut number = 0;
    for point in points {
        let mut totals = Totals::default();
        let together = (EVALUATION_STEPS / source.evaluation_steps(point).max(1)).clamp(1, EVALUATION_BATCH);
        for first in (0..sequences).step_by(together) {
            if number % group.size == group.rank {
                let size = together.min(sequences - first);
                let batch = source.evaluation_batch(seed, point, first as u64, size)?;
                totals.add(scoring, engine.forward(theta, &batch)?, &batch);
            }
            done(together.min(sequences - first));
            number += 1;
        }
        sums.push(totals.to_row());
    }
    group.sum(&mut sums)?;
    let score = |(point, row): (&Point, &Vec<f64>)| {
        let totals = Totals::from_row(row);
        Score { point: point.clone(), sequences: totals.sequences, figures: totals.figures(scoring) }
    };
    Ok(points.iter().zip(&sums).map(score).collect())
}

impl Trainer {
    /// Logs what a machine does with the first sequence of the first point where that is not too long to look at, its weights and
    /// the last gradient.
    fn look(&mut self, run: &mut Run, scores: &[Score], theta: &[f32], gradient: &[f32]) -> Result<()> {
        let shape = Shape::of(&self.recipe.model);
        let weights = shape.map_or(0, |shape| shape.rows * (shape.read_heads + shape.write_heads));
        let most = LOOK_STEPS.min(LOOK_WEIGHTS / weights.max(1));
        let mut batch = None;
        for score in scores {
            let first = self.source.evaluation_batch(EVALUATION_SEED, &score.point, 0, 1)?;
            if first.steps <= most {
                batch = Some(first);
                break;
            }
        }
        let Some(batch) = batch else { return Ok(()) };
        let weights = Tensor::from_slice(theta).to_device(self.theta.device());
        let logits = self.engine.forward(&weights, &batch)?.to_vec();
        let trace = self.engine.trace(&weights, &batch)?;
        let machine = shape.map(|shape| (shape, Memory::start(shape, &self.layout, theta)));
        let look = Look { batch: &batch, logits: &logits, trace: &trace, machine };
        run.log_machine(self.progress.step, &self.layout, theta, gradient, &look)
    }

    /// Evaluates at the recipe's points; also whether this is the best evaluation so far.
    pub(super) fn evaluate(&mut self) -> Result<(Vec<Score>, bool)> {
        let (points, sequences) = (points(&self.recipe.evaluation.grid), self.recipe.evaluation.sequences);
        let scores = self.scores(&points, sequences, EVALUATION_SEED)?;
        let step = self.progress.step;
        let losses: Vec<f64> = scores.iter().map(|score| score.figures.loss()).collect();
        if !losses.iter().all(|loss| loss.is_finite()) {
            return Err(NotFinite(format!("the loss of the evaluation is not a finite number at update {step}")).into());
        }
        if self.progress.solved.is_none() && self.recipe.solved.threshold.by(&scores) && self.confirmed(&points)? {
            let (sequences, seconds) = (self.progress.sequences, self.progress.seconds);
            self.progress.solved = Some(SolvedAt { step, sequences, seconds });
        }
        // squares may have any scale
        let least = if matches!(self.recipe.task.scoring(), Scoring::Squares) { f64::MIN_POSITIVE } else { 1e-9 };
        let this = Best::of(step, &losses, least);
        let best = self.progress.is_best(&this, self.progress.best.as_ref(), &self.recipe);
        if best {
            self.progress.best = Some(this);
        }
        Ok((scores, best))
    }

    /// Whether more sequences than those of the evaluation say too that the run is solved; the first that do not end it.
    pub(super) fn confirmed(&mut self, points: &[Point]) -> Result<bool> {
        let confirm = self.recipe.solved.confirm;
        for (round, first) in (0..confirm).step_by(CONFIRMATION_ROUND).enumerate() {
            let sequences = CONFIRMATION_ROUND.min(confirm - first);
            let scores = self.scores(points, sequences, CONFIRMATION_SEED - round as u64)?;
            if !self.recipe.solved.threshold.by(&scores) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The scores of the machine as it is, the average if there is one.
    pub(super) fn scores(&mut self, points: &[Point], sequences: usize, seed: u64) -> Result<Vec<Score>> {
        let theta = self.machine().shallow_clone();
        evaluate(&self.group, &mut *self.engine, &theta, &mut self.source, points, sequences, seed, |_| ())
    }

    /// Logs what has happened after an update; keeps the machine if it is the best.
    pub(super) fn log(&mut self, run: &mut Run, display: &Display, happened: &Happened) -> Result<()> {
        if happened.best {
            self.checkpoint().save(&run.best())?;
        }
        let evaluated = happened.scores.as_ref().map(|_| (host(self.machine()), host(&self.gradient)));
        self.log_of(run, display, happened, evaluated.as_ref())
    }

    /// Logs what happened at an earlier moment, whose weights and last gradient are given if there is to be a picture; keeps no
    /// machine.
    pub(super) fn log_of(
        &mut self,
        run: &mut Run,
        display: &Display,
        happened: &Happened,
        evaluated: Option<&(Vec<f32>, Vec<f32>)>,
    ) -> Result<()> {
        let step = self.progress.step;
        if let Some(scores) = &happened.scores {
            run.log_evaluation(step, self.progress.sequences, scores)?;
            let solved = self.recipe.solved.threshold.by(scores); // after a rollback perhaps no longer at the step where it was
            display.evaluation(scores, self.progress.solved.as_ref().filter(|at| at.step == step && solved));
            if let Some((theta, gradient)) = evaluated {
                self.look(run, scores, theta, gradient)?;
            }
        }
        if let Some(report) = &happened.report {
            run.log_report(report)?;
            display.report(report);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::progress::Best;
    use crate::train::testing::trainer;

    #[test]
    fn the_best_evaluation_beats_the_others_but_where_one_ends_the_run_as_solved() {
        let recipe = |solved: &str| {
            format!(
                r#"{{"task": {{"width": 3, "max_length": 4}}, "evaluation": {{"lengths": [4], "sequences": 2}},
                "model": {{"memory": {{"rows": 5, "width": 4}}, "controller": {{"hidden": 6}}}}, "solved": {solved}}}"#
            )
        };
        for (solved, best) in [
            (r#"{"metric": "loss_bits", "at_most": 1000, "stop": true}"#, true),
            (r#"{"metric": "loss_bits", "at_most": 1000, "stop": true, "confirm": 2}"#, true),
            (r#"{"metric": "loss_bits", "at_most": 1000, "stop": false}"#, false),
            (r#"{"metric": "loss_bits", "at_most": 0, "stop": true}"#, false),
        ] {
            let mut trainer = trainer(&recipe(solved));
            trainer.progress.best = Some(Best::of(0, &[1e-9], 1e-9));
            trainer.update().unwrap();
            assert_eq!(trainer.evaluate().unwrap().1, best, "{solved}");
            assert_eq!(trainer.progress.best.as_ref().unwrap().step, best as u64, "{solved}");
            trainer.progress.best = None;
            assert!(trainer.evaluate().unwrap().1, "{solved}: the first evaluation is the best");
        }
    }

    #[test]
    fn the_best_evaluation_has_the_lowest_geometric_mean_over_its_points() {
        let (learned, before) = (Best::of(2, &[0.08, 5606.0], 1e-9), Best::of(1, &[160.0, 960.0], 1e-9));
        assert!((learned.mean.unwrap() - (0.08 * 5606.0f64).sqrt()).abs() < 1e-9 && learned.loss == 5606.08);
        assert!(learned.beats(&before) && !before.beats(&learned), "sure and wrong at one of two lengths");
        assert!(!learned.beats(&learned), "the first of equals stays");
        assert!(Best::of(2, &[5e-10], 1e-300).beats(&Best::of(1, &[8e-10], 1e-300)), "squares may have any scale");
        assert!(Best::of(0, &[0.0, 3.0], 1e-9).mean.unwrap() > 0.0, "a loss of 0 does not end all comparison");
        let of_an_earlier_version = Best { mean: None, ..before };
        assert!(!learned.beats(&of_an_earlier_version) && of_an_earlier_version.beats(&learned));
    }
}
