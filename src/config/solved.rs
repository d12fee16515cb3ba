//! When a run counts as solved, and the bounds on an evaluation that say so.

use crate::limits::in_range;
use crate::metrics::{Score, column};
use crate::tasks::{Scoring, Task};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// A bound for every point of an evaluation during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    pub metric: Metric,
    pub at_most: f64,
}

/// The `solved` section of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Solved {
    #[serde(flatten)]
    pub threshold: Threshold,
    /// Whether the run ends there.
    pub stop: bool,
    /// So many more sequences of each point must be within it as well, each hundred of them, so that it is no luck;
    /// they are only drawn then.
    pub confirm: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Wrong bits of a sequence, an end marker that is counted apart among them.
    BitErrors,
    LossBits,
    /// Bits above the Bayes optimum of the same sequences.
    ExcessBits,
    SquaredError,
}

impl Solved {
    /// For recipes that say nothing.
    pub fn of(task: &Task) -> Solved {
        let metric = Metric::of_task(task)[0];
        Solved { threshold: Threshold { metric, at_most: metric.usual_bound() }, stop: false, confirm: 0 }
    }
}

impl Threshold {
    /// `section`: the part of the recipe that it stands in.
    pub fn validate(&self, section: &str, task: &Task) -> Result<()> {
        in_range(&format!("{section}.at_most"), self.at_most, 0.0, 1e30)?;
        let known = Metric::of_task(task);
        if !known.contains(&self.metric) {
            let names: Vec<String> = known.iter().map(|metric| metric.to_string()).collect();
            bail!("`{section}.metric` is {}, {} has {}", self.metric, task.name(), names.join(", "));
        }
        Ok(())
    }

    /// Whether every score is within it.
    pub fn by(&self, scores: &[Score]) -> bool {
        !scores.is_empty() && scores.iter().all(|score| self.metric.of(score) <= self.at_most)
    }
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        self.serialize(f)
    }
}

impl Metric {
    /// Those that a task has, first the one that solves it unless its recipe says otherwise.
    pub(super) fn of_task(task: &Task) -> &'static [Metric] {
        match task.scoring() {
            Scoring::Squares => &[Metric::SquaredError],
            Scoring::BitsAndOptimum { .. } => &[Metric::ExcessBits, Metric::BitErrors, Metric::LossBits],
            Scoring::Bits | Scoring::BitsAndMarker | Scoring::BitsByPosition => &[Metric::BitErrors, Metric::LossBits],
        }
    }

    /// The bound on it of a recipe that says none.
    fn usual_bound(self) -> f64 {
        match self {
            Metric::SquaredError => 0.01,
            Metric::ExcessBits => 1.0,
            Metric::BitErrors | Metric::LossBits => 0.0,
        }
    }

    /// Values below it, as means over so many sequences, count as alike when evaluations are compared (see `Best`).
    pub fn resolution(self, sequences: u64) -> f64 {
        match self {
            Metric::BitErrors => 0.5 / sequences.max(1) as f64, // half of one wrong bit
            Metric::SquaredError => f64::MIN_POSITIVE,          // squares may have any scale
            Metric::LossBits | Metric::ExcessBits => 1e-9,
        }
    }

    /// Infinite where the task has no such figure.
    pub fn of(self, score: &Score) -> f64 {
        let figure = |name| score.figures.number(name);
        let value = match self {
            Metric::BitErrors => figure("bit_errors").map(|bits| bits + figure("marker_errors").unwrap_or(0.0)),
            Metric::LossBits => figure("loss_bits"),
            Metric::ExcessBits => figure("loss_bits").zip(figure("optimum_bits")).map(|(loss, best)| loss - best),
            Metric::SquaredError => figure("squared_error"),
        };
        value.unwrap_or(f64::INFINITY)
    }

    /// In words, with its unit, above a column of these scores.
    pub fn said(self, scores: &[Score]) -> String {
        let markers = scores.iter().flat_map(|score| score.figures.means()).any(|(name, _)| name == "marker_errors");
        if self == Metric::BitErrors && markers {
            "wrong bits and markers".to_string()
        } else {
            column(&self.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Figure, Figures};
    use crate::tasks::Point;

    fn score(figures: &[(&'static str, f64)]) -> Score {
        let figures = Figures(figures.iter().map(|(name, value)| (*name, Figure::Mean(*value))).collect());
        Score { point: Point::default(), sequences: 1, figures }
    }

    #[test]
    fn every_point_must_be_within_the_threshold() {
        let solved = Threshold { metric: Metric::BitErrors, at_most: 0.5 };
        let (good, bad) = (score(&[("bit_errors", 0.5)]), score(&[("bit_errors", 0.6)]));
        assert!(solved.by(&[good.clone(), good.clone()]));
        assert!(!solved.by(&[good, bad]));
        assert!(!solved.by(&[]), "nothing measured is nothing solved");
    }

    #[test]
    fn wrong_markers_count_as_wrong_bits_and_excess_is_above_the_optimum() {
        let solved = |metric| Threshold { metric, at_most: 0.5 };
        assert!(!solved(Metric::BitErrors).by(&[score(&[("bit_errors", 0.0), ("marker_errors", 1.0)])]));
        assert!(solved(Metric::ExcessBits).by(&[score(&[("loss_bits", 128.4), ("optimum_bits", 128.0)])]));
    }

    #[test]
    fn a_metric_that_the_task_lacks_is_never_reached() {
        let solved = Threshold { metric: Metric::SquaredError, at_most: 0.5 };
        assert!(!solved.by(&[score(&[("loss_bits", 0.0)])]));
    }
}
