//! How far a run has come: counts, the best evaluation, where it was solved, and what the next report will sum.

use crate::config::{MOST_RESTARTS, MOST_ROLLBACKS, Recipe};
use crate::device::DeviceKind;
use crate::engine::EngineKind;
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
    /// Sequences seen, over all starts.
    pub sequences: u64,
    /// Seconds of training, over all sessions of the run.
    pub seconds: f64,
    /// The best evaluation so far, of any start.
    pub best: Option<Best>,
    /// The first evaluation of this start within the recipe's `solved` threshold.
    pub solved: Option<SolvedAt>,
    /// How often it has begun anew, from other weights.
    pub restarts: u32,
    /// The updates of the starts before this one.
    pub given_up: u64,
    /// How often this start went back to a good checkpoint, each time with half the learning rate.
    pub rollbacks: u32,
    #[serde(flatten)]
    pub trained_by: TrainedBy,
    /// What has been summed since the last report.
    pub window: Window,
    /// How far a curriculum by success has come.
    pub lesson: Lesson,
    /// Where a stopped run has been given the total that it has seen: the total it had before, until what is due at an
    /// end is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing: Option<u64>,
}

/// What trained up to a checkpoint. A resumed run goes on with it, unless a flag says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainedBy {
    pub engine: EngineKind,
    pub device: DeviceKind,
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

    /// The updates of a start that schedule, curriculum and blur are fractions of: while a stopped run is closed at what
    /// it has seen, those of the total that it was trained for.
    pub fn updates(&self, recipe: &Recipe) -> u64 {
        self.closing.map_or(recipe.updates(), |total| recipe.updates_of(total))
    }

    /// What schedule and rollbacks multiply the recipe's learning rate by.
    pub fn rate_factor(&self, recipe: &Recipe, step: u64) -> f64 {
        let halvings = 0.5f64.powi(self.rollbacks as i32);
        recipe.training.schedule.factor(step, self.updates(recipe)) * halvings
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

    /// Refuses numbers that no run can have, with which others would overflow.
    pub fn check(&self, recipe: &Recipe) -> Result<()> {
        let seen = self.step as u128 * recipe.training.batch_size as u128;
        let Progress { step, given_up, restarts, rollbacks, closing, .. } = *self;
        if given_up > step || step - given_up > recipe.updates() || restarts > MOST_RESTARTS || seen >= 1 << 62 {
            let updates = recipe.updates();
            bail!(
                "its progress is impossible: {step} updates, {given_up} of them given up in {restarts} restarts, with {updates} from a start"
            );
        }
        if rollbacks > MOST_ROLLBACKS {
            bail!("its progress is impossible: {rollbacks} rollbacks");
        }
        if closing == Some(0) {
            bail!("its progress is impossible: it was to see 0 sequences");
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

/// The best evaluation of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub step: u64,
    /// What it is judged by (`Recipe::judged_by`), the geometric mean over its points.
    pub mean: f64,
}

impl Best {
    /// Of an evaluation after `step` updates, with this figure at each point; all below `least` are alike.
    pub fn of(step: u64, figures: &[f64], least: f64) -> Best {
        let logarithms: f64 = figures.iter().map(|figure| figure.max(least).ln()).sum();
        Best { step, mean: (logarithms / figures.len() as f64).exp() }
    }

    /// Whether it is better than an earlier one. By the geometric mean, in which a point that is beyond what a machine
    /// can do does not drown the others. The later of equals is better: it has learned longer, at a lower rate.
    pub fn beats(&self, earlier: &Best) -> bool {
        self.mean <= earlier.mean
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
    /// After the clip.
    pub clipped_norms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_evaluation_has_the_lowest_geometric_mean_over_its_points_and_is_the_later_of_equals() {
        let (learned, before) = (Best::of(2, &[0.5, 490.0], 1e-3), Best::of(1, &[30.0, 480.0], 1e-3));
        assert!((learned.mean - (0.5 * 490.0f64).sqrt()).abs() < 1e-9);
        assert!(learned.beats(&before) && !before.beats(&learned), "lost at one of two lengths, as before");
        assert!(Best::of(3, &[0.5, 490.0], 1e-3).beats(&learned), "the later of equals");
        assert!(Best::of(2, &[5e-10], 1e-300).beats(&Best::of(1, &[8e-10], 1e-300)), "squares may have any scale");
        assert!(Best::of(0, &[0.0, 3.0], 1e-9).mean > 0.0, "a figure of 0 does not end all comparison");
    }
}
