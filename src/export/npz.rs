//! The weights alone as an uncompressed .npz, for numpy.load.

use super::weights;
use crate::checkpoint::Checkpoint;
use anyhow::{Context, Result};
use std::path::Path;
use tch::Tensor;

pub fn write(checkpoint: &Checkpoint, path: &Path) -> Result<()> {
    Tensor::write_npz(&weights(checkpoint), path).with_context(|| format!("cannot write `{}`", path.display()))
}
