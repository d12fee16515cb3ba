//! The Neural Turing Machine as Graves, Wayne and Danihelka 2014 (arXiv 1410.5401) define it, composed of tch's nn
//! primitives and the two operations of `crate::ops`. This is the definition; `crate::fused` is the same function,
//! fast.
//!
//! Letters, here and in the fused engine (words everywhere else):
//!
//!     T  steps of a sequence         N  memory rows           R  read heads
//!     B  sequences in a batch        M  memory width          W  write heads
//!     X  input width                 H  controller hidden     S  shift range (odd)
//!     Y  output width                L  controller layers
//!
//! Time-major tensors: inputs (T, B, X), logits (T, B, Y), memory (B, N, M), a weighting (B, N).
//! A gradient is `d_` + name, the previous step's value `prev_` + name.

mod addressing;
mod config;
mod controller;
mod emitted;
mod head;
mod lstm;
mod memory;
mod ntm;
mod parameters;
mod rows;

pub use config::{
    Activation, Activations, AddressingStart, Config, ControllerConfig, Init, KeyStart, MemoryStart, NtmConfig,
    WeightingStart,
};
pub use emitted::Emitted;
pub use parameters::{Layout, Parameter, Parameters};
pub use rows::with_rows;

use tch::Tensor;

/// A network between inputs and outputs of certain widths: all that its weights and an engine for it depend on.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    pub config: &'a Config,
    pub input_width: usize,
    pub output_width: usize,
}

impl<'a> Spec<'a> {
    pub fn new(config: &'a Config, input_width: usize, output_width: usize) -> Spec<'a> {
        Spec { config, input_width, output_width }
    }

    /// An upper bound of the number of weights, by arithmetic that cannot overflow for sizes `validate` passes.
    pub fn size(self) -> u128 {
        let Spec { config, input_width, output_width } = self;
        let (layers, read, heads, memory) = match config {
            Config::Lstm(layers) => (*layers, 0, 0, 0),
            Config::Ntm(ntm) => {
                let head = ntm.emitted().writing();
                let heads = ntm.heads();
                (
                    ntm.controller.layers(),
                    ntm.read_heads * ntm.memory.width,
                    heads * head,
                    ntm.memory.rows * (ntm.memory.width + heads),
                )
            }
        };
        let (hidden, stacked) = (layers.hidden as u128, layers.layers as u128);
        let inner = (input_width + read) as u128 + hidden * 2 + 2;
        4 * hidden * inner * stacked
            + heads as u128 * (hidden + 1)
            + (hidden + read as u128 + 1) * output_width as u128
            + memory as u128
    }
}

/// Eq. 9 takes the logarithm of a weighting plus this, so that a weight of 0 stays finite.
pub const SHARPEN_EPSILON: f64 = 1e-16;

/// The value of every cell of a `constant` memory at the first step.
pub const CONSTANT_MEMORY: f64 = 1e-6;

/// One of the networks a recipe can name, with its state passed in and returned at each step.
pub enum Network {
    Ntm(ntm::Ntm),
    Lstm(lstm::Lstm),
}

impl Network {
    /// The network whose weights are the given tensors. `blur`: of all heads' shifts, if it has any (see `Batch`).
    pub fn new(config: &Config, parameters: &Parameters, blur: f64) -> Network {
        match config {
            Config::Ntm(config) => Network::Ntm(ntm::Ntm::new(config, parameters, blur)),
            Config::Lstm(config) => Network::Lstm(lstm::Lstm::new(config, parameters)),
        }
    }

    /// inputs (T, B, X) -> logits (T, B, Y)
    pub fn forward(&self, inputs: &Tensor) -> Tensor {
        let size = inputs.size()[1];
        let steps = inputs.unbind(0); // T times (B, X)
        let logits: Vec<Tensor> = match self {
            Network::Ntm(network) => {
                run(&steps, network.initial_state(size), |input, state| network.step(input, state))
            }
            Network::Lstm(network) => {
                run(&steps, network.initial_state(size), |input, state| network.step(input, state))
            }
        };
        Tensor::stack(&logits, 0)
    }
}

/// Threads a state through the steps of a sequence.
fn run<S>(inputs: &[Tensor], start: S, step: impl Fn(&Tensor, &S) -> (Tensor, S)) -> Vec<Tensor> {
    let mut state = start;
    let mut outputs = Vec::with_capacity(inputs.len());
    for input in inputs {
        let (output, next) = step(input, &state);
        outputs.push(output);
        state = next;
    }
    outputs
}
