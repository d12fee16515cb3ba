//! Heads: one Linear each, from the controller's hidden state to everything the head asks for.

use super::addressing::{Addressing, activate};
use super::config::{Activation, NtmConfig};
use super::memory::Edit;
use super::parameters::Parameters;
use tch::Tensor;
use tch::nn::{Linear, Module};

/// What all heads of a machine share: sizes, activations, and the blur of their shifts (see `Batch`).
#[derive(Clone, Copy)]
struct HeadSizes {
    width: i64,      // M
    shifts: i64,     // S
    addressing: i64, // M + 3 + S
    key: Activation,
    add: Activation,
    blur: f64,
}

impl HeadSizes {
    fn new(config: &NtmConfig, blur: f64) -> HeadSizes {
        let [width, shifts, addressing] =
            [config.memory.width, config.shift_range, config.emitted().reading()].map(|size| size as i64);
        HeadSizes { width, shifts, addressing, key: config.activation.key, add: config.activation.add, blur }
    }

    /// raw (B, M + 3 + S) -> where to read or write
    fn addressing(&self, raw: &Tensor) -> Addressing {
        Addressing::new(raw, self.width, self.shifts, self.key, self.blur)
    }
}

pub struct ReadHead {
    linear: Linear,
    sizes: HeadSizes,
}

impl ReadHead {
    pub fn new(config: &NtmConfig, index: usize, parameters: &Parameters, blur: f64) -> ReadHead {
        ReadHead { linear: parameters.linear(&format!("heads.read.{index}")), sizes: HeadSizes::new(config, blur) }
    }

    /// hidden (B, H) -> where to read
    pub fn forward(&self, hidden: &Tensor) -> Addressing {
        self.sizes.addressing(&self.linear.forward(hidden))
    }
}

pub struct WriteHead {
    linear: Linear,
    sizes: HeadSizes,
}

impl WriteHead {
    pub fn new(config: &NtmConfig, index: usize, parameters: &Parameters, blur: f64) -> WriteHead {
        WriteHead { linear: parameters.linear(&format!("heads.write.{index}")), sizes: HeadSizes::new(config, blur) }
    }

    /// hidden (B, H) -> where to write, and what
    pub fn forward(&self, hidden: &Tensor) -> (Addressing, Edit) {
        let HeadSizes { width, addressing, add, .. } = self.sizes;
        let parts = self.linear.forward(hidden).split_with_sizes([addressing, width, width], 1);
        let edit = Edit { erase: parts[1].sigmoid(), add: activate(&parts[2], add) };
        (self.sizes.addressing(&parts[0]), edit)
    }
}
