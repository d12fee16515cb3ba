//! The machine: controller, heads and memory, one step at a time.

use super::CONSTANT_MEMORY;
use super::addressing::Addressing;
use super::config::{MemoryStart, NtmConfig, WeightingStart};
use super::controller::{Controller, LstmState};
use super::head::{ReadHead, WriteHead};
use super::memory::{Edit, read, write};
use super::parameters::Parameters;
use tch::nn::{Linear, Module};
use tch::{Kind, Tensor};

pub struct Ntm {
    controller: Controller,
    read_heads: Vec<ReadHead>,
    write_heads: Vec<WriteHead>,
    output: Linear,
    initial: InitialState,
}

/// The first memory, weightings and reads, which all sequences share.
struct InitialState {
    memory: Tensor,    // (N, M)
    weighting: Tensor, // (R + W, N)
    read: Tensor,      // (R, M)
}

/// The state after a step: what the next step starts from, and what the write heads did to get here.
pub struct State {
    controller: LstmState,
    memory: Tensor,              // (B, N, M)
    pub weightings: Vec<Tensor>, // R + W times (B, N), read heads first
    pub reads: Vec<Tensor>,      // R times (B, M)
    pub edits: Vec<Edit>,        // W times
    /// What the heads asked for, R + W times, read heads first.
    pub addressings: Vec<Addressing>,
}

impl Ntm {
    pub fn new(config: &NtmConfig, parameters: &Parameters, blur: f64) -> Ntm {
        let (rows, width) = (config.memory.rows as i64, config.memory.width as i64);
        let heads = config.heads() as i64;
        let options = parameters.options();
        let memory = match config.init.memory {
            MemoryStart::Constant => Tensor::full([rows, width], CONSTANT_MEMORY, options),
            MemoryStart::Learned | MemoryStart::Random => parameters.get("init.memory"),
        };
        let weighting = match config.init.weighting {
            WeightingStart::Learned | WeightingStart::LearnedRandom => {
                parameters.get("init.weighting").softmax(1, None::<Kind>)
            }
            WeightingStart::OneHot => Tensor::eye_m(1, rows, options).expand([heads, -1], false),
            WeightingStart::Uniform => Tensor::full([heads, rows], 1.0 / rows as f64, options),
        };
        Ntm {
            controller: Controller::new(&config.controller, parameters),
            read_heads: (0..config.read_heads).map(|head| ReadHead::new(config, head, parameters, blur)).collect(),
            write_heads: (0..config.write_heads).map(|head| WriteHead::new(config, head, parameters, blur)).collect(),
            output: parameters.linear("output"),
            initial: InitialState { memory, weighting, read: parameters.get("init.read") },
        }
    }

    /// The first state for `size` sequences.
    pub fn initial_state(&self, size: i64) -> State {
        let rows = |all: &Tensor| all.unbind(0).iter().map(|row| row.expand([size, -1], false)).collect();
        State {
            controller: self.controller.initial_state(size),
            memory: self.initial.memory.expand([size, -1, -1], false),
            weightings: rows(&self.initial.weighting),
            reads: rows(&self.initial.read),
            edits: vec![],
            addressings: vec![],
        }
    }

    /// input (B, X) -> logits (B, Y), and the next state. All heads address M_{t-1}; the reads come before the writes.
    pub fn step(&self, input: &Tensor, prev: &State) -> (Tensor, State) {
        let seen: Vec<&Tensor> = std::iter::once(input).chain(&prev.reads).collect();
        let (hidden, controller) = self.controller.step(&Tensor::cat(&seen, 1), &prev.controller);

        let (read_weightings, write_weightings) = prev.weightings.split_at(self.read_heads.len());
        let mut weightings = Vec::with_capacity(prev.weightings.len());
        let mut addressings = Vec::with_capacity(prev.weightings.len());
        let mut reads = Vec::with_capacity(self.read_heads.len());
        for (head, prev_weighting) in self.read_heads.iter().zip(read_weightings) {
            let addressing = head.forward(&hidden);
            let weighting = addressing.weighting(&prev.memory, prev_weighting);
            reads.push(read(&prev.memory, &weighting));
            weightings.push(weighting);
            addressings.push(addressing);
        }
        let mut memory = prev.memory.shallow_clone();
        let mut edits = Vec::with_capacity(self.write_heads.len());
        for (head, prev_weighting) in self.write_heads.iter().zip(write_weightings) {
            let (addressing, edit) = head.forward(&hidden);
            let weighting = addressing.weighting(&prev.memory, prev_weighting);
            memory = write(&memory, &weighting, &edit);
            weightings.push(weighting);
            addressings.push(addressing);
            edits.push(edit);
        }

        let shown: Vec<&Tensor> = std::iter::once(&hidden).chain(&reads).collect();
        let logits = self.output.forward(&Tensor::cat(&shown, 1));
        (logits, State { controller, memory, weightings, reads, edits, addressings })
    }
}
