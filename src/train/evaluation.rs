//! Evaluation: while training, and of a machine alone.

use super::{NotFinite, Trainer};
use crate::distributed::Group;
use crate::engine::Engine;
use crate::metrics::{Score, Totals};
use crate::progress::{Best, SolvedAt};
use crate::tasks::{Batch, Point, Source, points};
use anyhow::Result;
use tch::Tensor;

/// The sequences that evaluation during training draws; `ntm eval` starts from another seed.
pub(super) const EVALUATION_SEED: u64 = 0;
/// Those that confirm one, in rounds of so many, each with the seed before.
const CONFIRMATION_SEED: u64 = u64::MAX;
const CONFIRMATION_ROUND: usize = 100;
/// Sequences of one evaluation batch, and steps of all of them together, so that long ones do not fill the memory.
const EVALUATION_BATCH: usize = 20;
const EVALUATION_STEPS: usize = 100_000;

/// What is measured: so many sequences, drawn from a seed, at each point.
pub struct Protocol<'a> {
    pub points: &'a [Point],
    pub sequences: usize,
    pub seed: u64,
}

/// Mean cost and errors at each point, the batches dealt out to the ranks of a group. `seen` is given those of this
/// rank as they come, each with its point, the number of its first sequence and its logits.
pub fn evaluate(
    group: &Group,
    engine: &mut dyn Engine,
    theta: &Tensor,
    source: &mut Source,
    protocol: &Protocol,
    seen: impl Fn(&Point, usize, &Batch, &[f32]) -> Result<()>,
) -> Result<Vec<Score>> {
    let Protocol { points, seed, .. } = *protocol;
    let scoring = source.task.scoring();
    let sequences = source.evaluation_count(protocol.sequences);
    let mut sums = vec![];
    let mut number = 0;
    for point in points {
        let mut totals = Totals::default();
        let together = (EVALUATION_STEPS / source.evaluation_steps(point).max(1)).clamp(1, EVALUATION_BATCH);
        for first in (0..sequences).step_by(together) {
            if number % group.size == group.rank {
                let size = together.min(sequences - first);
                let batch = source.evaluation_batch(seed, point, first as u64, size)?;
                let logits = engine.forward(theta, &batch)?;
                totals.add(scoring, logits, &batch);
                seen(point, first, &batch, logits)?;
            }
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
        let judged = self.recipe.judged_by();
        let figures: Vec<f64> = scores.iter().map(|score| judged.of(score)).collect();
        let sequences = scores.iter().map(|score| score.sequences).max().unwrap_or(1);
        let this = Best::of(step, &figures, judged.resolution(sequences));
        let best = self.progress.is_best(&this, self.progress.best.as_ref(), &self.recipe);
        if best {
            self.progress.best = Some(this);
        }
        Ok((scores, best))
    }

    /// Whether more sequences than those of the evaluation say too that the run is solved; the first that do not end
    /// it.
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
        let theta = self.evaluated_weights().shallow_clone();
        let protocol = Protocol { points, sequences, seed };
        evaluate(&self.group, &mut *self.engine, &theta, &mut self.source, &protocol, |_, _, _, _| Ok(()))
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
}
