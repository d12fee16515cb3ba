//! Whether a run that has not got far enough begins anew.

use super::{Metric, Threshold};
use crate::limits::{above_zero, in_range};
use crate::tasks::Task;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The most restarts that a run may have.
pub const MOST_RESTARTS: u32 = 1000;

/// The `training.restart` section of a recipe. Whether a start finds an algorithm is luck, and shows long before the
/// end: several short tries find it sooner than one long one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Restart {
    Never,
    /// From weights drawn anew, unless the evaluation after the fraction `after` of the updates is within the threshold
    /// at every point; also if a number is not finite, and with `until_solved` after the last update of a start that
    /// has not been solved. `times` times at most, after which a run goes to its end; a start that has been solved is
    /// kept. The fraction is of the updates as they are when it is reached: a run that is made longer is looked at
    /// again.
    Unless {
        #[serde(flatten)]
        threshold: Threshold,
        after: f64,
        until_solved: bool,
        times: u64,
    },
}

impl Restart {
    /// The default of every kind, the usual one first.
    pub fn kinds() -> Vec<Restart> {
        let threshold = Threshold { metric: Metric::BitErrors, at_most: 0.0 };
        vec![Restart::Never, Restart::Unless { threshold, after: 1.0, until_solved: false, times: 5 }]
    }

    pub fn validate(&self, task: &Task) -> Result<()> {
        let Restart::Unless { threshold, after, times, .. } = self else { return Ok(()) };
        threshold.validate("training.restart", task)?;
        above_zero("training.restart.after", *after, 1.0)?;
        in_range("training.restart.times", *times, 1, MOST_RESTARTS as u64)
    }

    /// How often a run may begin anew.
    pub fn times(&self) -> u32 {
        match self {
            Restart::Never => 0,
            Restart::Unless { times, .. } => *times as u32,
        }
    }

    /// Whether a start must be solved by its end.
    pub fn until_solved(&self) -> bool {
        matches!(self, Restart::Unless { until_solved: true, .. })
    }

    /// What must be reached after a step since the last start, which counts from 1, of `updates`; none where nothing
    /// must. `solved`: what solves the run.
    pub fn asks<'a>(&'a self, step: u64, updates: u64, solved: &'a Threshold) -> Option<&'a Threshold> {
        match self {
            Restart::Unless { until_solved: true, .. } if step == updates => Some(solved),
            Restart::Unless { threshold, after, .. } if step == place(*after, updates) => Some(threshold),
            _ => None,
        }
    }

    /// Whether it asks again after a step of `updates`.
    pub fn asks_after(&self, step: u64, updates: u64) -> bool {
        match self {
            Restart::Never => false,
            Restart::Unless { until_solved, after, .. } => {
                step < place(*after, updates) || *until_solved && step < updates
            }
        }
    }
}

/// The update that a fraction of them comes to, from 1 on.
fn place(fraction: f64, updates: u64) -> u64 {
    ((fraction * updates as f64).round() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_once_in_a_start_and_perhaps_at_its_end() {
        let [wanted, solved] = [3.0, 0.0].map(|at_most| Threshold { metric: Metric::BitErrors, at_most });
        let steps = |after, until_solved| {
            let restart = Restart::Unless { threshold: wanted.clone(), after, until_solved, times: 1 };
            let asked = |step| restart.asks(step, 10, &solved).map(|threshold| (step, threshold.at_most));
            (0..=10).filter_map(asked).collect::<Vec<_>>()
        };
        assert_eq!([0.001, 0.21, 0.3, 1.0].map(|after| steps(after, false)), [1, 2, 3, 10].map(|at| vec![(at, 3.0)]));
        assert_eq!(steps(0.3, true), [(3, 3.0), (10, 0.0)]);
        assert_eq!(place(0.28, 100_000), 28_000);
        assert_eq!(steps(1.0, true), [(10, 0.0)]);
        assert_eq!(Restart::Never.asks(10, 10, &solved), None);
        let asks_after = |after, until_solved| {
            let restart = Restart::Unless { threshold: wanted.clone(), after, until_solved, times: 1 };
            (0..=10).filter(|step| restart.asks_after(*step, 10)).count()
        };
        assert_eq!(
            [(0.3, false), (0.3, true), (1.0, false)].map(|(after, until)| asks_after(after, until)),
            [3, 10, 10]
        );
        assert!(!Restart::Never.asks_after(0, 10));
    }
}
