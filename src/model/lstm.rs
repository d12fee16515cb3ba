//! The paper's baseline: stacked LSTM layers and a linear output, without a memory.

use super::config::Layers;
use super::controller::{LstmStack, LstmState};
use super::parameters::Parameters;
use tch::Tensor;
use tch::nn::{Linear, Module};

pub struct Lstm {
    stack: LstmStack,
    output: Linear,
}

impl Lstm {
    pub fn new(layers: &Layers, parameters: &Parameters) -> Lstm {
        Lstm { stack: LstmStack::new("lstm", *layers, parameters), output: parameters.linear("output") }
    }

    /// The learned first state for `size` sequences.
    pub fn initial_state(&self, size: i64) -> LstmState {
        self.stack.initial_state(size)
    }

    /// input (B, X) -> logits (B, Y), and the next state
    pub fn step(&self, input: &Tensor, prev: &LstmState) -> (Tensor, LstmState) {
        let (hidden, state) = self.stack.step(input, prev);
        (self.output.forward(&hidden), state)
    }
}
