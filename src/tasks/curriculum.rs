//! What training draws from over a start.

use super::Varying;
use crate::limits::{above_zero, in_range};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::f64::consts::LN_2;
use std::ops::RangeInclusive;

/// The `training.curriculum` section of a recipe. Fractions are of the updates of a start, as in its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Curriculum {
    /// The task's own ranges throughout.
    None,
    /// The upper end of every range grows in a straight line from the axis's least value to its own over the fraction
    /// `over`.
    Grow { over: f64 },
    /// The ranges grow by success: by one value each time that the last `updates` updates cost at most `at_most`
    /// bits an output.
    Mastered { at_most: f64, updates: u64 },
}

/// How far `mastered` has come, and what the updates since it last looked have cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lesson {
    /// How often it has grown.
    pub level: u64,
    /// In nats, of so many outputs.
    pub loss: f64,
    pub values: u64,
}

impl Curriculum {
    /// The default of every kind, the usual one first.
    pub fn kinds() -> Vec<Curriculum> {
        vec![Curriculum::None, Curriculum::Grow { over: 0.2 }, Curriculum::Mastered { at_most: 0.3, updates: 250 }]
    }

    pub fn validate(&self) -> Result<()> {
        match self {
            Curriculum::None => Ok(()),
            Curriculum::Grow { over } => in_range("training.curriculum.over", *over, 0.0, 1.0),
            Curriculum::Mastered { at_most, updates } => {
                above_zero("training.curriculum.at_most", *at_most, 1e6)?;
                in_range("training.curriculum.updates", *updates, 1, 1_000_000_000)
            }
        }
    }

    /// How far the ranges reach at a step, which counts from 0, of `updates`: from 0, the least values, to 1, all of
    /// them.
    pub fn reach(&self, step: u64, updates: u64, lesson: &Lesson, axes: &[Varying]) -> f64 {
        match self {
            Curriculum::Mastered { .. } => {
                let levels = axes.iter().map(|axis| axis.training.end().saturating_sub(axis.least)).max();
                (lesson.level as f64 / levels.unwrap_or(0).max(1) as f64).min(1.0)
            }
            Curriculum::Grow { over } if *over > 0.0 => (step as f64 / (over * updates as f64).max(1.0)).min(1.0),
            Curriculum::None | Curriculum::Grow { .. } => 1.0,
        }
    }

    /// Whether it looks at what the last updates have cost before the update of a step, which counts from 0.
    pub fn asks(&self, step: u64) -> bool {
        matches!(self, Curriculum::Mastered { updates, .. } if step > 0 && step.is_multiple_of(*updates))
    }

    /// Grows if that was little enough, and begins to sum anew.
    pub fn judge(&self, lesson: &mut Lesson) {
        let Curriculum::Mastered { at_most, .. } = self else { return };
        let mastered = lesson.loss / LN_2 <= at_most * lesson.values as f64;
        *lesson = Lesson { level: lesson.level + mastered as u64, ..Lesson::default() };
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
            let axes = [Varying { axis: Axis::Items, least: 2, training, evaluation: vec![6], sample: 3 }];
            let grow = Curriculum::Grow { over: 0.5 };
            let reach = |step| grow.reach(step, 100, &Lesson::default(), &axes);
            [0, 25, 50, 99].map(|step| reached(&axes[0], reach(step)))
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
        assert_eq!(Curriculum::None.reach(0, 100, &Lesson::default(), &[]), 1.0);
        assert_eq!(Curriculum::Grow { over: 0.0 }.reach(0, 100, &Lesson::default(), &[]), 1.0);
    }

    #[test]
    fn by_success_the_ranges_grow_by_one_value_each_time_the_cost_was_small_enough() {
        let axes = [Varying { axis: Axis::Vectors, least: 1, training: 20..=20, evaluation: vec![20], sample: 3 }];
        let mastered = Curriculum::Mastered { at_most: 0.5, updates: 10 };
        assert_eq!([0, 9, 10, 15, 20].map(|step| mastered.asks(step)), [false, false, true, false, true]);
        let mut lesson = Lesson::default();
        let mut ranges = vec![];
        for bits in [50.0, 51.0, 10.0] {
            lesson = Lesson { loss: bits * LN_2, values: 100, ..lesson };
            mastered.judge(&mut lesson);
            assert_eq!((lesson.loss, lesson.values), (0.0, 0));
            ranges.push(reached(&axes[0], mastered.reach(0, 100, &lesson, &axes)));
        }
        assert_eq!(ranges, [2..=2, 2..=2, 3..=3]);
        let far = Lesson { level: 100, ..lesson };
        assert_eq!(reached(&axes[0], mastered.reach(0, 100, &far, &axes)), 20..=20);
    }
}
