//! Your own sequences, from files: one JSON object a line.
//!
//!     {"input": [[0, 1], [1, 0], [0, 0]], "target": [[0], [0], [1]], "mask": [0, 0, 1]}
//!
//!     step            0  1  2                    a list of T steps each, so T = 3
//!     input   ...     0  1  0                    X values a step, the same X on every line
//!             ...     1  0  0
//!     target  ...     0  0  1                    Y values a step: 0 or 1, or any number if the loss is squared
//!     mask            0  0  1                    only these steps count; without a mask, all

use super::{Loss, MOST, Scoring};
use crate::limits::in_range;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// The files, the loss, and what the files turned out to hold: 0 and nothing until they have been read. A recipe with
/// these filled in asks for the same files again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sequences {
    pub train: String,
    pub eval: String,
    pub loss: Loss,
    pub input_width: usize,
    pub output_width: usize,
    /// The steps of the longest training sequence.
    pub max_steps: usize,
    /// Bytes and checksum of each file.
    pub train_content: String,
    pub eval_content: String,
}

impl Sequences {
    pub fn validate(&self) -> Result<()> {
        for (field, path) in [("train", &self.train), ("eval", &self.eval)] {
            if path.is_empty() {
                bail!(
                    "`task.{field}` is empty, expected the path of a file with one JSON object a line\n\
                     hint: `--set task.{field}=data.jsonl`; one file may serve as both `train` and `eval`"
                );
            }
        }
        in_range("task.input_width", self.input_width, 0, MOST)?;
        in_range("task.output_width", self.output_width, 0, MOST)?;
        in_range("task.max_steps", self.max_steps, 0, 1 << 32)
    }

    /// X and Y, once they are known.
    pub fn widths(&self) -> Option<(usize, usize)> {
        Some((self.input_width, self.output_width)).filter(|(x, y)| *x > 0 && *y > 0)
    }

    pub fn scoring(&self) -> Scoring {
        match self.loss {
            Loss::CrossEntropy => Scoring::Bits,
            Loss::Squared => Scoring::Squares,
        }
    }
}
