//! Heads: one Linear each, from the controller's hidden state to everything the head asks for.

use super::addressing::{Addressing, activate};
use super::config::{Activation, Ntm};
use super::memory::Edit;
use super::parameters::Parameters;
use tch::Tensor;
use tch::nn::{Linear, Module};

/// The sizes and activations that all heads of a machine share.
#[derive(Clone, Copy)]
struct Shape {
    width: i64,  // M
    shifts: i64, // S
    key: Activation,
    add: Activation,
}

impl Shape {
    fn new(config: &Ntm) -> Shape {
        let (width, shifts) = (config.memory.width as i64, config.shift_range as i64);
        Shape { width, shifts, key: config.activation.key, add: config.activation.add }
    }
}

pub struct ReadHead {
    linear: Linear,
    shape: Shape,
}

impl ReadHead {
    pub fn new(config: &Ntm, index: usize, parameters: &Parameters) -> ReadHead {
        ReadHead { linear: parameters.linear(&format!("heads.read.{index}")), shape: Shape::new(config) }
    }

    /// hidden (B, H) -> where to read. `blur`: see `Batch`.
    pub fn forward(&self, hidden: &Tensor, blur: f64) -> Addressing {
        let Shape { width, shifts, key, .. } = self.shape;
        Addressing::new(&self.linear.forward(hidden), width, shifts, key, blur)
    }
}

pub struct WriteHead {
    linear: Linear,
    shape: Shape,
}

impl WriteHead {
    pub fn new(config: &Ntm, index: usize, parameters: &Parameters) -> WriteHead {
        WriteHead { linear: parameters.linear(&format!("heads.write.{index}")), shape: Shape::new(config) }
    }

    /// hidden (B, H) -> where to write, and what. `blur`: see `Batch`.
    pub fn forward(&self, hidden: &Tensor, blur: f64) -> (Addressing, Edit) {
        let Shape { width, shifts, key, add } = self.shape;
        let parts = self.linear.forward(hidden).split_with_sizes([Addressing::width(width, shifts), width, width], 1);
        let edit = Edit { erase: parts[1].sigmoid(), add: activate(&parts[2], add) };
        (Addressing::new(&parts[0], width, shifts, key, blur), edit)
    }
}
