//! Formats for other programs, a file or a folder each.

pub mod npz;
pub mod onnx;
pub mod safetensors;
pub mod torchscript;

use crate::model::{Config, ControllerConfig};

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
