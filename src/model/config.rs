//! The `model` section of a recipe.

use super::emitted::Emitted;
use crate::limits::in_range;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// Which network, and its sizes. `lstm` is the paper's baseline: stacked LSTM layers and a linear output, no memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Config {
    Ntm(NtmConfig),
    Lstm(Layers),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NtmConfig {
    pub controller: ControllerConfig,
    pub memory: MemorySize,
    pub read_heads: usize,
    pub write_heads: usize,
    pub shift_range: usize,
    pub activation: Activations,
    pub init: Init,
}

impl NtmConfig {
    pub fn heads(&self) -> usize {
        self.read_heads + self.write_heads
    }

    /// The layout of what each head emits.
    pub fn emitted(&self) -> Emitted {
        Emitted::new(self.memory.width, self.shift_range)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ControllerConfig {
    Lstm(Layers),
    /// Linear layers with tanh between input and heads, no state of its own.
    Feedforward(Layers),
}

/// Layers of equal hidden size, the first one nearest the input.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layers {
    pub hidden: usize,
    pub layers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemorySize {
    pub rows: usize,
    pub width: usize,
}

/// What the key and add vectors pass through; the paper leaves it open.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activations {
    pub key: Activation,
    pub add: Activation,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    Linear,
    Tanh,
}

/// Where memory, weightings and heads start. With all rows alike and all weights alike no learning can tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Init {
    pub memory: MemoryStart,
    pub weighting: WeightingStart,
    pub keys: KeyStart,
    pub addressing: AddressingStart,
    /// Added to the start of each head's bias for the key strength, before the softplus.
    pub strength: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryStart {
    /// 1e-6 in every cell, as in the notebook.
    Constant,
    /// Learned from a normal start.
    Learned,
    /// Normal draws that stay as they are.
    Random,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightingStart {
    /// A learned softmax whose start is focused on row 0.
    Learned,
    /// All weight on row 0.
    OneHot,
    /// 1 / N everywhere.
    Uniform,
    /// A learned softmax that starts from normal draws.
    LearnedRandom,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyStart {
    /// Every head's weights are drawn for themselves.
    Independent,
    /// Each head's weights of the key start as a write head's weights of the add vector: a write head's as its own,
    /// read head i's as those of write head i, counted modulo W; where addressing starts as `tape`, all as those of the
    /// first. So from the first step on a head that sees again what was written asks for the row it was written to, and
    /// content addressing has something to improve on.
    Aligned,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressingStart {
    /// Every head's gate and shifts are drawn, near the middle.
    Free,
    /// The first write head starts as that of a tape, which keeps its place and goes on by a row each step, from where
    /// its weighting starts; the other heads look up by content, with aligned keys and some strength what that one
    /// writes.
    Tape,
}

impl Default for NtmConfig {
    fn default() -> Self {
        NtmConfig {
            controller: ControllerConfig::Lstm(Layers { hidden: 100, layers: 1 }),
            memory: MemorySize { rows: 128, width: 20 },
            read_heads: 1,
            write_heads: 1,
            shift_range: 3,
            activation: Activations { key: Activation::Linear, add: Activation::Linear },
            init: Init {
                memory: MemoryStart::Constant,
                weighting: WeightingStart::Learned,
                keys: KeyStart::Aligned,
                addressing: AddressingStart::Free,
                strength: 0.0,
            },
        }
    }
}

impl ControllerConfig {
    /// The default of every kind, the usual one first.
    pub fn kinds() -> Vec<ControllerConfig> {
        let usual = NtmConfig::default().controller;
        let layers = usual.layers();
        vec![usual, ControllerConfig::Feedforward(layers)]
    }

    pub fn layers(&self) -> Layers {
        match self {
            ControllerConfig::Lstm(layers) | ControllerConfig::Feedforward(layers) => *layers,
        }
    }
}

impl Config {
    /// The default of every kind, the usual one first.
    pub fn kinds() -> Vec<Config> {
        vec![Config::Ntm(NtmConfig::default()), Config::Lstm(Layers { hidden: 256, layers: 3 })]
    }

    /// Checks the sizes; the error names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        match self {
            Config::Lstm(layers) => layers.validate("model"),
            Config::Ntm(ntm) => {
                ntm.controller.layers().validate("model.controller")?;
                in_range("model.memory.rows", ntm.memory.rows, 1, 1 << 24)?;
                in_range("model.memory.width", ntm.memory.width, 1, 1 << 16)?;
                in_range("model.read_heads", ntm.read_heads, 1, 256)?;
                in_range("model.write_heads", ntm.write_heads, 1, 256)?;
                in_range("model.init.strength", ntm.init.strength, -1e3, 1e3)?;
                if ntm.shift_range % 2 == 0 || ntm.shift_range > 255 {
                    bail!("`model.shift_range` is {}, allowed: odd numbers from 1 to 255", ntm.shift_range);
                }
                if ntm.init.addressing == AddressingStart::Tape && ntm.shift_range == 1 {
                    bail!(
                        "`model.init.addressing` is `tape`, which needs a shift to move by: `model.shift_range` of 3 or more, not 1"
                    );
                }
                Ok(())
            }
        }
    }

    /// About how many values the composed engine keeps per step and sequence for the backward pass.
    pub fn activations(&self) -> u128 {
        match self {
            Config::Lstm(layers) => 10 * layers.hidden as u128 * layers.layers as u128,
            Config::Ntm(ntm) => {
                let heads = ntm.heads() as u128;
                let layers = ntm.controller.layers();
                10 * layers.hidden as u128 * layers.layers as u128
                    + heads * ntm.memory.rows as u128 * (2 * ntm.memory.width + 14 + 9 * ntm.shift_range / 4) as u128
            }
        }
    }
}

impl Layers {
    fn validate(&self, section: &str) -> Result<()> {
        in_range(&format!("{section}.hidden"), self.hidden, 1, 1 << 16)?;
        in_range(&format!("{section}.layers"), self.layers, 1, 64)
    }
}
