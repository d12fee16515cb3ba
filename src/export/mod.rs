//! Formats for other programs, a file or a folder each.

pub mod npz;
pub mod onnx;
pub mod safetensors;
pub mod torchscript;

use crate::checkpoint::Checkpoint;
use crate::model::{Config, ControllerConfig, Parameter};
use tch::Tensor;

/// The weights by name, in the order of the layout.
fn weights(checkpoint: &Checkpoint) -> Vec<(String, Tensor)> {
    let tensor = |parameter: &Parameter| {
        let shape: Vec<i64> = parameter.shape.iter().map(|&size| size as i64).collect();
        (parameter.name.clone(), Tensor::from_slice(&checkpoint.theta[parameter.range()]).view(shape.as_slice()))
    };
    checkpoint.recipe.layout().parameters.iter().map(tensor).collect()
}

/// The parts of a state, in the order in which exported programs take and give them: hidden and cell (L, B, H),
/// memory (B, N, M), weighting (B, R + W, N), read (B, R, M).
pub fn state_names(config: &Config) -> &'static [&'static str] {
    let all = &["hidden", "cell", "memory", "weighting", "read"];
    match config {
        Config::Lstm(_) => &all[..2],
        Config::Ntm(config) => match config.controller {
            ControllerConfig::Lstm(_) => all,
            ControllerConfig::Feedforward(_) => &all[2..],
        },
    }
}
