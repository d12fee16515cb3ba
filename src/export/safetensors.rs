//! The weights alone as safetensors: PyTorch's names, the recipe in the metadata.

use crate::checkpoint::{Checkpoint, bytes, write_safetensors};
use anyhow::Result;
use std::collections::HashMap;
use std::path::Path;

pub fn write(checkpoint: &Checkpoint, path: &Path) -> Result<()> {
    let layout = checkpoint.recipe.layout();
    let tensor = |p: &crate::model::Parameter| (p.name.clone(), p.shape.clone(), bytes(&checkpoint.theta[p.range()]));
    let tensors: Vec<_> = layout.parameters.iter().map(tensor).collect();
    let metadata = HashMap::from([("recipe".to_string(), serde_json::to_string(&checkpoint.recipe)?)]);
    write_safetensors(path, &tensors, metadata)
}
