//! What training draws from over a run.

use super::Varying;
use crate::limits::check;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// The `training.curriculum` section of a recipe. Fractions are of the run's updates, as in its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Curriculum {
    /// The task's own ranges throughout.
    None {},
    /// The upper end of every range grows in a straight line from the axis's least value to its own over the fraction `over`.
    Grow { over: f64 },
}

impl Curriculum {
    /// The default of every kind.
    pub fn kinds() -> Vec<Curriculum> {
        vec![Curriculum::None {}, Curriculum::Grow { over: 0.2 }]
    }

    pub fn validate(&self) -> Result<()> {
        match self {
            Curriculum::None {} => Ok(()),
            Curriculum::Grow { over } => check("training.curriculum.over", *over, 0.0, 1.0),
        }
    }

    /// How far the ranges reach at a step, which counts from 0, of `updates`: from 0, the least values, to 1, all of them.
    pub fn reach(&self, step: u64, updates: u64) -> f64 {
        match self {
            Curriculum::None {} => 1.0,
            Curriculum::Grow { over } => (step as f64 / (over * updates as f64).max(1.0)).min(1.0),
        }
    }
}

/// The values that training draws from at a reach.
pub fn reached(axis: &Varying, reach: f64) -> RangeInclusive<usize> {
    let (low, high) = (*axis.training.start(), *axis.training.end());
    let least = axis.least.min(low);
    let high = least + ((high - least) as f64 * reach).round() as usize;
    low.min(high)..=high
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Axis;

    #[test]
    fn ranges_grow_from_the_least_value_to_their_own_over_a_fraction_of_the_run() {
        let ranges = |training| {
            let axis = Varying { axis: Axis::Items, least: 2, training, evaluation: vec![6], sample: 3 };
            let grow = Curriculum::Grow { over: 0.5 };
            [0, 25, 50, 99].map(|step| reached(&axis, grow.reach(step, 100)))
        };
        assert_eq!(ranges(2..=6), [2..=2, 2..=4, 2..=6, 2..=6]);
        assert_eq!(ranges(4..=6), [2..=2, 4..=4, 4..=6, 4..=6]);
        assert_eq!(
            ranges(6..=6),
            [2..=2, 4..=4, 6..=6, 6..=6],
            "a task with one size only passes through the smaller ones"
        );
    }

    #[test]
    fn without_a_curriculum_or_after_one_of_no_length_all_is_there_from_the_start() {
        assert_eq!(Curriculum::None {}.reach(0, 100), 1.0);
        assert_eq!(Curriculum::Grow { over: 0.0 }.reach(1, 100), 1.0);
    }
}
