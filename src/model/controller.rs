//! The controller: what the paper calls the network that reads the input and drives the heads.

use super::config::{ControllerConfig, Layers};
use super::parameters::Parameters;
use tch::Tensor;
use tch::nn::{Linear, Module};

/// Stacked LSTM cells, the first one nearest the input; each gate's weights as in PyTorch's LSTMCell.
pub struct LstmStack {
    cells: Vec<[Tensor; 4]>, // weight_ih (4H, inputs), weight_hh (4H, H), bias_ih (4H), bias_hh (4H)
    start: (Tensor, Tensor), // hidden and cell (L, H)
}

/// Hidden and cell state of every layer, each (B, H).
pub struct LstmState(Vec<(Tensor, Tensor)>);

impl LstmStack {
    pub fn new(prefix: &str, layers: Layers, parameters: &Parameters) -> LstmStack {
        let cell = |layer| {
            ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
                .map(|name| parameters.get(&format!("{prefix}.{name}_l{layer}")))
        };
        LstmStack {
            cells: (0..layers.layers).map(cell).collect(),
            start: (parameters.get("init.hidden"), parameters.get("init.cell")),
        }
    }

    /// The learned first state for `size` sequences.
    pub fn initial_state(&self, size: i64) -> LstmState {
        let rows = |start: &Tensor, layer| start.get(layer).expand([size, -1], false);
        let layers = 0..self.cells.len() as i64;
        LstmState(layers.map(|layer| (rows(&self.start.0, layer), rows(&self.start.1, layer))).collect())
    }

    /// input (B, inputs) -> hidden state of the last layer (B, H), and the next state
    pub fn step(&self, input: &Tensor, LstmState(prev): &LstmState) -> (Tensor, LstmState) {
        let mut hidden = input.shallow_clone();
        let mut state = Vec::with_capacity(self.cells.len());
        for ([weight_ih, weight_hh, bias_ih, bias_hh], (prev_h, prev_c)) in self.cells.iter().zip(prev) {
            let (h, c) = hidden.lstm_cell(&[prev_h, prev_c], weight_ih, weight_hh, Some(bias_ih), Some(bias_hh));
            hidden = h.shallow_clone();
            state.push((h, c));
        }
        (hidden, LstmState(state))
    }
}

pub enum Controller {
    Lstm(LstmStack),
    Feedforward(Vec<Linear>),
}

impl Controller {
    pub fn new(config: &ControllerConfig, parameters: &Parameters) -> Controller {
        match config {
            ControllerConfig::Lstm(layers) => Controller::Lstm(LstmStack::new("controller", *layers, parameters)),
            ControllerConfig::Feedforward(layers) => {
                let linear = |layer| parameters.linear(&format!("controller.{layer}"));
                Controller::Feedforward((0..layers.layers).map(linear).collect())
            }
        }
    }

    /// The first state for `size` sequences; that of feed-forward layers is empty.
    pub fn initial_state(&self, size: i64) -> LstmState {
        match self {
            Controller::Lstm(stack) => stack.initial_state(size),
            Controller::Feedforward(_) => LstmState(vec![]),
        }
    }

    /// input (B, X + R M) -> hidden (B, H), and the next state
    pub fn step(&self, input: &Tensor, prev: &LstmState) -> (Tensor, LstmState) {
        match self {
            Controller::Lstm(stack) => stack.step(input, prev),
            Controller::Feedforward(layers) => {
                let hidden = layers.iter().fold(input.shallow_clone(), |input, layer| layer.forward(&input).tanh());
                (hidden, LstmState(vec![]))
            }
        }
    }
}
