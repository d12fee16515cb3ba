//! The weights alone as safetensors: PyTorch's names, the recipe in the metadata.

use crate::checkpoint::{Checkpoint, bytes, safetensors_bytes};
use crate::model::Parameter;
use anyhow::Result;

pub fn encode(checkpoint: &Checkpoint) -> Result<Vec<u8>> {
    let layout = checkpoint.recipe.layout();
    let tensor = |p: &Parameter| (p.name.clone(), p.shape.clone(), bytes(&checkpoint.theta[p.range()]));
    let tensors: Vec<_> = layout.parameters.iter().map(tensor).collect();
    let recipe = serde_json::to_string(&checkpoint.recipe)?;
    Ok(safetensors_bytes(&tensors, &[("recipe", &recipe)]))
}
