//! How far a run has come: counts, the best evaluation, where it was solved, and what the next report will sum.

use crate::config::{MOST_RESTARTS, Recipe};
use crate::metrics::Totals;
use crate::optim::Clip;
use crate::tasks::Lesson;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// How far a run has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Updates done, over all starts.
    pub step: u64,
    /// Sequences seen.
    pub sequences: u64,
    /// Seconds of training, over all sessions of the run.
    pub seconds: f64,
    /// The best evaluation so far, of any start.
    pub best: Option<Best>,
    /// The first evaluation of this start within the recipe's `solved` threshold.
    #[serde(default)]
    pub solved: Option<SolvedAt>,
    /// How often it has begun anew, from other weights.
    #[serde(default)]
    pub restarts: u32,
    /// The updates of the starts before this one.
    #[serde(default)]
    pub given_up: u64,
    /// How often this start went back to a good checkpoint, each time with half the learning rate.
    #[serde(default)]
    pub rollbacks: u32,
    /// The engine that trained up to the checkpoint: a resumed run goes on with it.
    pub engine: String,
    /// What it trained on, `cpu` or `cuda`, where that is known: a resumed run goes on there unless a flag says
    /// otherwise.
    #[serde(default)]
    pub device: String,
    /// What has been summed since the last report.
    pub window: Window,
    /// How far a curriculum by success has come.
    #[serde(default)]
    pub lesson: Lesson,
    /// Where a stopped run has been given the total that it has seen: the total it had before, until what is due at an
    /// end is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing: Option<u64>,
}

impl Progress {
    pub fn finished(&self, recipe: &Recipe) -> bool {
        self.step_of_start() >= recipe.updates() || self.stops_solved(recipe)
    }

    /// Whether it has been solved, and its recipe stops there.
    pub fn stops_solved(&self, recipe: &Recipe) -> bool {
        recipe.solved.stop && self.solved.is_some()
    }

    /// Whether an evaluation in it is the best: the one that solves a run that stops where it is solved, and until then
    /// the one that beats the best before.
    pub fn is_best(&self, this: &Best, before: Option<&Best>, recipe: &Recipe) -> bool {
        self.stops_solved(recipe) || before.is_none_or(|best| this.beats(best))
    }

    /// The updates since the last start.
    pub fn step_of_start(&self) -> u64 {
        self.step - self.given_up
    }

    /// The number of the next batch. It says which start and which of its updates, and nothing of the starts before: a
    /// start is the same whenever those have ended. After 2^32 updates, years of them, batches come again.
    pub fn batch(&self) -> u64 {
        (self.restarts as u64) << 32 | self.step_of_start()
    }

    /// The learning rate of an update of this start, which counts from 1.
    pub fn learning_rate(&self, recipe: &Recipe, step: u64) -> f64 {
        recipe.training.optimizer.learning_rate() * self.rate_factor(recipe, step)
    }

    /// What schedule and rollbacks multiply the recipe's learning rate by.
    pub fn rate_factor(&self, recipe: &Recipe, step: u64) -> f64 {
        let halvings = 0.5f64.powi(self.rollbacks as i32);
        let updates = self.closing.map_or(recipe.updates(), |total| recipe.updates_of(total));
        recipe.training.schedule.factor(step, updates) * halvings
    }

    /// The sequences that will have been seen at the end of this start.
    pub fn expected(&self, recipe: &Recipe) -> u64 {
        let left = recipe.updates() - self.step_of_start();
        self.sequences.saturating_add(left * recipe.training.batch_size as u64)
    }

    /// This progress of a start that was trained ahead of its turn, counted from where the run stood when that start
    /// began.
    pub fn rebased_onto(self, begun: &Progress) -> Progress {
        let seconds = begun.seconds; // it took the run none
        let sequences = self.sequences + begun.sequences;
        let step = self.step + begun.step;
        let solved = self.solved.map(|at| SolvedAt {
            step: at.step + begun.step,
            sequences: at.sequences + begun.sequences,
            seconds,
        });
        let best = self.best.map(|best| Best { step: best.step + begun.step, ..best });
        Progress { step, sequences, seconds, solved, best, given_up: begun.step, ..self }
    }

    /// Refuses numbers that no run can have come to, and that others would overflow with.
    pub fn check(&self, recipe: &Recipe) -> Result<()> {
        let seen = self.step as u128 * recipe.training.batch_size as u128;
        let Progress { step, given_up, restarts, .. } = *self;
        if given_up > step || step - given_up > recipe.updates() || restarts > MOST_RESTARTS || seen >= 1 << 62 {
            let updates = recipe.updates();
            bail!(
                "its progress is impossible: {step} updates, {given_up} of them given up in {restarts} restarts, with {updates} from a start"
            );
        }
        Ok(())
    }

    /// Counts an update with the norm of its gradient.
    pub fn count(&mut self, totals: &Totals, norm: f64, clip: &Clip) {
        self.window.totals += totals;
        self.window.updates += 1;
        self.window.grad_norms += norm;
        self.window.clipped_norms += clip.clipped(norm).unwrap_or(0.0);
        self.lesson.loss += totals.loss;
        self.lesson.values += totals.values;
    }
}

/// What an evaluation has come to: bits of a sequence, or squared errors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub step: u64,
    /// The geometric mean over its points. Files of earlier versions have none.
    #[serde(default)]
    pub mean: Option<f64>,
    /// The sum over its points.
    #[serde(alias = "loss_bits")]
    pub loss: f64,
}

impl Best {
    /// What is kept of an evaluation after `step` updates, with this loss at each point; all below `least` are alike.
    pub fn of(step: u64, losses: &[f64], least: f64) -> Best {
        let logarithms: f64 = losses.iter().map(|loss| loss.max(least).ln()).sum();
        let mean = Some((logarithms / losses.len() as f64).exp());
        Best { step, mean, loss: losses.iter().sum() }
    }

    /// Whether it is better than another. By the geometric mean, since the sum would say that a machine is best before
    /// it learns, where a point is beyond its memory and what it has learned is wrong there with certainty.
    pub fn beats(&self, other: &Best) -> bool {
        match (self.mean, other.mean) {
            (Some(mine), Some(theirs)) => mine < theirs,
            _ => self.loss < other.loss,
        }
    }
}

/// Where a run was solved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SolvedAt {
    pub step: u64,
    pub sequences: u64,
    pub seconds: f64,
}

/// Sums over the updates since the last report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    pub totals: Totals,
    pub updates: u64,
    pub grad_norms: f64,
    /// After the clip; 0 where that is not known.
    #[serde(default)]
    pub clipped_norms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

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
