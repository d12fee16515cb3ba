//! What a run does about a number that is not finite.

use crate::limits::in_range;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The most rollbacks that a start may have.
pub const MOST_ROLLBACKS: u32 = 30;

/// The `training.on_nonfinite` section of a recipe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum OnNonfinite {
    /// Ends with an error; the last good checkpoint stays.
    #[default]
    Stop,
    /// Goes back to the last checkpoint of `training.checkpoint_every` with half the learning rate, `at_most` times
    /// from each start.
    Rollback { at_most: u64 },
}

impl OnNonfinite {
    /// How many rollbacks a recipe has that says no number: after the last the learning rate is 1/32.
    pub const ROLLBACKS: u64 = 5;

    /// The default of every kind, the usual one first.
    pub fn kinds() -> Vec<OnNonfinite> {
        vec![OnNonfinite::Stop, OnNonfinite::Rollback { at_most: OnNonfinite::ROLLBACKS }]
    }

    pub fn validate(&self) -> Result<()> {
        match self {
            OnNonfinite::Stop => Ok(()),
            OnNonfinite::Rollback { at_most } => {
                in_range("training.on_nonfinite.at_most", *at_most, 1, MOST_ROLLBACKS as u64)
            }
        }
    }

    /// How often a start may go back.
    pub fn rollbacks(&self) -> u32 {
        match self {
            OnNonfinite::Stop => 0,
            OnNonfinite::Rollback { at_most } => *at_most as u32,
        }
    }
}
