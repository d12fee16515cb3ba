//! The networks of `crate::model` as ONNX operators, all heads side by side.

use super::graph::{Graph, Value};
use crate::model::{
    Activation, CONSTANT_MEMORY, Config, ControllerConfig, MemoryStart, NtmConfig, SHARPEN_EPSILON, WeightingStart,
};
use crate::ops::COSINE_EPSILON;
use std::collections::HashMap;

/// A network in a graph.
pub struct Network<'g> {
    pub config: &'g Config,
    pub graph: &'g Graph,
    /// By their names; all heads' Linears as one, `heads.weight` and `heads.bias`, read heads first.
    pub weights: HashMap<String, Value<'g>>,
}

impl<'g> Network<'g> {
    fn get(&self, name: &str) -> Value<'g> {
        *self.weights.get(name).unwrap_or_else(|| panic!("no weight {name}"))
    }

    fn linear(&self, prefix: &str, input: Value<'g>) -> Value<'g> {
        input.linear(self.get(&format!("{prefix}.weight")), self.get(&format!("{prefix}.bias")))
    }

    /// The first state of `size` sequences, in the order of `state_names`.
    pub fn start(&self, size: Value<'g>) -> Vec<Value<'g>> {
        // (..., ...) -> three axes, the one at `axis` new and of the size
        let repeated = |value: Value<'g>, axis: usize| {
            let mut shape = [self.graph.ints(&[1], &[1]); 3];
            shape[axis] = size;
            value.unsqueeze(axis as i64).expand(self.graph.concat(&shape, 0))
        };
        let lstm = || ["init.hidden", "init.cell"].map(|name| repeated(self.get(name), 1));
        match self.config {
            Config::Lstm(_) => lstm().to_vec(),
            Config::Ntm(config) => {
                let shared = [self.memory_start(config), self.weighting_start(config), self.get("init.read")];
                let shared = shared.map(|value| repeated(value, 0));
                match config.controller {
                    ControllerConfig::Lstm(_) => [&lstm()[..], &shared].concat(),
                    ControllerConfig::Feedforward(_) => shared.to_vec(),
                }
            }
        }
    }

    /// (N, M)
    fn memory_start(&self, config: &NtmConfig) -> Value<'g> {
        let (rows, width) = (config.memory.rows as i64, config.memory.width as i64);
        match config.init.memory {
            MemoryStart::Constant => self.graph.scalar(CONSTANT_MEMORY).expand(self.graph.ints(&[2], &[rows, width])),
            MemoryStart::Learned | MemoryStart::Random => self.get("init.memory"),
        }
    }

    /// (R + W, N)
    fn weighting_start(&self, config: &NtmConfig) -> Value<'g> {
        let (rows, heads) = (config.memory.rows, config.heads());
        let shape = || self.graph.ints(&[2], &[heads as i64, rows as i64]);
        match config.init.weighting {
            WeightingStart::Learned | WeightingStart::LearnedRandom => self.get("init.weighting").softmax(),
            WeightingStart::OneHot => {
                let row: Vec<f32> = (0..rows).map(|row| (row == 0) as u8 as f32).collect();
                self.graph.floats("one_hot", &[1, rows], &row).expand(shape())
            }
            WeightingStart::Uniform => self.graph.scalar(1.0 / rows as f64).expand(shape()),
        }
    }

    /// x (B, X) and the previous state -> logits (B, Y), and the next state
    pub fn step(&self, x: Value<'g>, prev: &[Value<'g>]) -> (Value<'g>, Vec<Value<'g>>) {
        match self.config {
            Config::Lstm(layers) => {
                let (h, state) = self.lstm("lstm", layers.layers, x, prev);
                (self.linear("output", h), state)
            }
            Config::Ntm(config) => self.ntm_step(config, x, prev),
        }
    }

    fn ntm_step(&self, config: &NtmConfig, x: Value<'g>, prev: &[Value<'g>]) -> (Value<'g>, Vec<Value<'g>>) {
        // `shift_range` and `init` are other functions': a field that comes new must be some function's
        let NtmConfig { controller, memory, read_heads, write_heads, shift_range: _, activation, init: _ } = config;
        let (width, reads, writes) = (memory.width, *read_heads, *write_heads);
        let (prev_controller, shared) = prev.split_at(prev.len() - 3);
        let [prev_memory, weighting, read] = *shared else { unreachable!("memory, weighting, read") };
        let flat = |read: Value<'g>| read.reshape(&[0, (reads * width) as i64]);

        let layers = controller.layers().layers;
        let seen = self.graph.concat(&[x, flat(read)], 1);
        let (h, mut state) = match controller {
            ControllerConfig::Lstm(_) => self.lstm("controller", layers, seen, prev_controller),
            ControllerConfig::Feedforward(_) => {
                let layer = |input, layer| self.linear(&format!("controller.{layer}"), input).op("Tanh");
                ((0..layers).fold(seen, layer), vec![])
            }
        };

        let addressing = config.emitted().reading();
        let emitted = self.linear("heads", h).split(1, &[reads * addressing, writes * (addressing + 2 * width)]);
        let by_head = |index: usize, heads: usize| emitted[index].reshape(&[0, heads as i64, -1]);
        let edits = by_head(1, writes).split(2, &[addressing, width, width]);
        let raw = self.graph.concat(&[by_head(0, reads), edits[0]], 1);
        let weighting = self.address(config, raw, prev_memory, weighting);

        let mut sizes = vec![1; 1 + writes];
        sizes[0] = reads;
        let weightings = weighting.split(1, &sizes); // (B, R, N), then W times (B, 1, N)
        // Eq. 2: read
        let read = weightings[0].matmul(prev_memory);
        // Eq. 3, 4: write, one head after the other
        let erases = edits[1].op("Sigmoid").split(1, &sizes[1..]);
        let adds = activated(edits[2], activation.add).split(1, &sizes[1..]);
        let memory = (0..writes).fold(prev_memory, |memory, head| {
            let w = weightings[1 + head].transposed(); // (B, N, 1)
            memory * (1.0 - w * erases[head]) + w * adds[head]
        });
        state.extend([memory, weighting, read]);
        (self.linear("output", self.graph.concat(&[h, flat(read)], 1)), state)
    }

    /// raw (B, heads, M + 3 + S), memory (B, N, M), prev_weighting (B, heads, N) -> weighting (B, heads, N)
    fn address(&self, config: &NtmConfig, raw: Value<'g>, memory: Value<'g>, prev_weighting: Value<'g>) -> Value<'g> {
        let parts = raw.split(2, &[config.memory.width, 1, 1, config.shift_range, 1]);
        let [key, strength, gate, shift, sharpening] = parts[..] else { unreachable!("split in five") };
        let key = activated(key, config.activation.key);
        // Eq. 6: cosine similarity
        let norm = |rows: Value<'g>| (rows.sum_of_squares() + COSINE_EPSILON).op("Sqrt");
        let norms = norm(key).unsqueeze(2) * norm(memory).unsqueeze(1);
        let similarity = key.matmul(memory.transposed()) / norms;
        // Eq. 5: content
        let content = (strength.op("Softplus") * similarity).softmax();
        // Eq. 7: interpolation
        let gate = gate.op("Sigmoid");
        let gated = gate * content + (1.0 - gate) * prev_weighting;
        // Eq. 8: circular convolution; tap k of row i is row i + k - S / 2
        let (rows, taps) = (config.memory.rows as i64, config.shift_range as i64);
        let index: Vec<i64> = (0..taps * rows).map(|at| (at % rows + at / rows - taps / 2).rem_euclid(rows)).collect();
        let tapped = gated.gather(self.graph.ints(&[taps as usize, rows as usize], &index), 2); // (B, heads, S, N)
        let shifted = shift.softmax().unsqueeze(2).matmul(tapped).squeeze(2);
        // Eq. 9: sharpening
        ((sharpening.op("Softplus") + 1.0) * (shifted + SHARPEN_EPSILON).op("Log")).softmax()
    }

    /// input (B, inputs), prev hidden and cell (L, B, H) -> hidden of the last layer (B, H), and hidden and cell
    fn lstm(&self, prefix: &str, layers: usize, input: Value<'g>, prev: &[Value<'g>]) -> (Value<'g>, Vec<Value<'g>>) {
        let mut x = input;
        let (mut hidden, mut cell) = (vec![], vec![]);
        for layer in 0..layers {
            let [h, c] = [0, 1].map(|part: usize| prev[part].gather(self.graph.ints(&[], &[layer as i64]), 0));
            let weight = |name: &str| self.get(&format!("{prefix}.{name}_l{layer}"));
            let z = x.linear(weight("weight_ih"), weight("bias_ih")) + h.linear(weight("weight_hh"), weight("bias_hh"));
            let gates = z.reshape(&[0, 4, -1]).split(1, &[1; 4]);
            let [i, f, g, o] = [0, 1, 2, 3].map(|gate: usize| gates[gate].squeeze(1));
            let c = f.op("Sigmoid") * c + i.op("Sigmoid") * g.op("Tanh");
            x = o.op("Sigmoid") * c.op("Tanh");
            hidden.push(x.unsqueeze(0));
            cell.push(c.unsqueeze(0));
        }
        (x, vec![self.graph.concat(&hidden, 0), self.graph.concat(&cell, 0)])
    }
}

fn activated(value: Value, activation: Activation) -> Value {
    match activation {
        Activation::Linear => value,
        Activation::Tanh => value.op("Tanh"),
    }
}
