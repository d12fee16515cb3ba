//! The weights alone as an uncompressed .npz, for numpy.load.

use crate::checkpoint::Checkpoint;
use anyhow::{Context, Result};
use std::path::Path;
use tch::Tensor;

pub fn write(checkpoint: &Checkpoint, path: &Path) -> Result<()> {
    let layout = checkpoint.recipe.layout();
    let tensor = |parameter: &crate::model::Parameter| {
        let shape: Vec<i64> = parameter.shape.iter().map(|&size| size as i64).collect();
        (parameter.name.clone(), Tensor::from_slice(&checkpoint.theta[parameter.range()]).view(shape.as_slice()))
    };
    let tensors: Vec<_> = layout.parameters.iter().map(tensor).collect();
    Tensor::write_npz(&tensors, path).with_context(|| format!("cannot write `{}`", path.display()))
}
