//! The learning rate over a start.

use crate::limits::in_range;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The `training.schedule` section of a recipe. Fractions are of the updates of a start, so a run that is made longer
/// decays later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Schedule {
    /// The optimizer's learning rate throughout.
    Constant,
    /// The optimizer's learning rate for the fraction `hold`, then a straight line to `end` times it at the fraction
    /// `until` (1: just after the last update), where it stays.
    Linear { hold: f64, until: f64, end: f64 },
}

impl Schedule {
    /// The default of every kind, the usual one first.
    pub fn kinds() -> Vec<Schedule> {
        vec![Schedule::Constant, Schedule::Linear { hold: 0.5, until: 1.0, end: 0.0 }]
    }

    pub fn validate(&self) -> Result<()> {
        match self {
            Schedule::Constant => Ok(()),
            Schedule::Linear { hold, until, end } => {
                in_range("training.schedule.hold", *hold, 0.0, 1.0)?;
                in_range("training.schedule.until", *until, *hold, 1.0)?;
                in_range("training.schedule.end", *end, 0.0, 1.0)
            }
        }
    }

    /// What the learning rate is multiplied by at `step`, which counts from 1, of `updates`.
    pub fn factor(&self, step: u64, updates: u64) -> f64 {
        match self {
            Schedule::Constant => 1.0,
            Schedule::Linear { hold, until, end } => 1.0 - between(step, updates, *hold, *until) * (1.0 - end),
        }
    }
}

/// How far `step`, which counts from 1, of `updates` lies on a straight line between two fractions of them: 0 up to
/// `from`, 1 from `to` on.
pub fn between(step: u64, updates: u64, from: f64, to: f64) -> f64 {
    let done = (step - 1) as f64 / updates as f64;
    ((done - from) / (to - from).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_schedule_holds_the_rate_then_falls_to_its_end() {
        for (until, expected) in
            [(1.0, [1.0, 1.0, 0.6, 0.2]), (0.75, [1.0, 1.0, 0.2, 0.2]), (0.5, [1.0, 1.0, 0.2, 0.2])]
        {
            let schedule = Schedule::Linear { hold: 0.5, until, end: 0.2 };
            let factors = [1, 51, 76, 101].map(|step| schedule.factor(step, 100));
            for (factor, expected) in factors.iter().zip(expected) {
                assert!((factor - expected).abs() < 1e-12, "until {until}: {factors:?}");
            }
        }
        assert_eq!(Schedule::Linear { hold: 1.0, until: 1.0, end: 0.0 }.factor(100, 100), 1.0);
    }
}
