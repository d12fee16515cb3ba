//! What training adds to the machine's shifts, so that it learns to keep its weightings sharp.

use crate::limits::{above_zero, in_range};
use crate::model;
use crate::optim::between;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// The `training.blur` section of a recipe: while training, every head's shift is mixed with a uniform one, (1 - blur)
/// s + blur / S. A weighting that is moved on from step to step then spreads a little at each, unless the machine
/// sharpens it (Eq. 9), which short sequences alone hardly ask for. Fractions are of the updates of a start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Blur {
    None,
    /// 0 for the fraction `hold`, then a straight line to `at`, which the fraction `full` reaches and the rest keeps.
    Ramp {
        at: f64,
        hold: f64,
        full: f64,
    },
}

impl Blur {
    /// The default of every kind, the usual one first.
    pub fn kinds() -> Vec<Blur> {
        vec![Blur::None, Blur::Ramp { at: 0.1, hold: 0.1, full: 0.3 }]
    }

    pub fn validate(&self, model: &model::Config) -> Result<()> {
        let Blur::Ramp { at, hold, full } = self else { return Ok(()) };
        in_range("training.blur.hold", *hold, 0.0, 1.0)?;
        in_range("training.blur.full", *full, *hold, 1.0)?;
        above_zero("training.blur.at", *at, 0.9)?;
        match model {
            model::Config::Ntm(ntm) if ntm.shift_range > 1 => Ok(()),
            _ => bail!("`training.blur` blurs the shifts of heads, this model has none\nhint: leave its kind at none"),
        }
    }

    /// The blur at `step`, which counts from 1, of `updates`.
    pub fn at(&self, step: u64, updates: u64) -> f64 {
        match self {
            Blur::None => 0.0,
            Blur::Ramp { at, hold, full } => at * between(step, updates, *hold, *full),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_holds_zero_grows_and_stays() {
        let ramp = |hold, full| Blur::Ramp { at: 0.2, hold, full };
        let at = |blur: Blur| [1, 26, 51, 76, 100].map(|step| (blur.at(step, 100) * 1e9).round() / 1e9);
        assert_eq!(at(ramp(0.25, 0.75)), [0.0, 0.0, 0.1, 0.2, 0.2]);
        assert_eq!(at(ramp(0.5, 0.5)), [0.0, 0.0, 0.0, 0.2, 0.2]);
        assert_eq!(at(Blur::None), [0.0; 5]);
    }

    #[test]
    fn what_is_no_ramp_is_refused_by_name() {
        let [ntm, lstm] = &model::Config::kinds()[..] else { panic!("two kinds of model") };
        let told = |at, hold, full| Blur::Ramp { at, hold, full }.validate(ntm).map_err(|error| error.to_string());
        assert!(told(0.1, 0.0, 1.0).is_ok());
        assert!(Blur::kinds()[1].validate(lstm).unwrap_err().to_string().contains("this model has none"));
        assert!(told(1.0, 0.0, 1.0).unwrap_err().contains("`training.blur.at` is 1"));
        assert!(told(0.1, 0.5, 0.4).unwrap_err().contains("`training.blur.full` is 0.4"));
    }
}
