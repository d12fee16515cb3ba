//! Whether a run that has not got far enough begins anew.

use super::{Metric, Threshold};
use crate::limits::{check, positive};
use crate::tasks::Task;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The `training.restart` section of a recipe. Whether a start finds an algorithm is luck, and shows long before the end: several
/// short tries find it sooner than one long one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Restart {
    Never {},
    /// From weights drawn anew, unless the evaluation after the fraction `after` of the updates is within the threshold at
    /// every point, or if a number is not finite; `times` times at most, after which a run goes to its end.
    Unless {
        #[serde(flatten)]
        threshold: Threshold,
        after: f64,
        times: u32,
    },
}

impl Restart {
    /// The default of every kind.
    pub fn kinds() -> Vec<Restart> {
        let threshold = Threshold { metric: Metric::BitErrors, at_most: 0.0 };
        vec![Restart::Never {}, Restart::Unless { threshold, after: 1.0, times: 5 }]
    }

    pub fn validate(&self, task: &Task) -> Result<()> {
        let Restart::Unless { threshold, after, times } = self else { return Ok(()) };
        threshold.validate("training.restart", task)?;
        positive("training.restart.after", *after)?;
        check("training.restart.after", *after, 0.0, 1.0)?;
        check("training.restart.times", *times, 1, 1000)
    }

    /// How often a run may begin anew.
    pub fn times(&self) -> u32 {
        match self {
            Restart::Never {} => 0,
            Restart::Unless { times, .. } => *times,
        }
    }

    /// What must be reached after a step since the last start, which counts from 1, of `updates`; none where nothing must.
    pub fn asks(&self, step: u64, updates: u64) -> Option<&Threshold> {
        match self {
            Restart::Unless { threshold, after, .. } if step == (after * updates as f64).ceil() as u64 => Some(threshold),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_once_in_a_start_and_at_the_last_update_at_the_latest() {
        let steps = |after| {
            let [_, Restart::Unless { threshold, times, .. }] = &Restart::kinds()[..] else { panic!("two kinds") };
            let restart = Restart::Unless { threshold: threshold.clone(), after, times: *times };
            (0..=10).filter(|step| restart.asks(*step, 10).is_some()).collect::<Vec<_>>()
        };
        assert_eq!([0.001, 0.25, 0.3, 1.0].map(steps), [[1], [3], [3], [10]]);
        assert_eq!(Restart::Never {}.asks(10, 10), None);
    }
}
