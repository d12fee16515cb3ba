//! What drives a network: `train` and `eval` see this trait and don't know which engine runs.

use crate::optim::DeviceUpdate;
use crate::tasks::Batch;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// The two engines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    #[default]
    Fused,
    Composed,
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// A network's function and its gradient. The weights are theta, flat, in the order of the network's `Layout`.
pub trait Engine {
    fn kind(&self) -> EngineKind;

    /// The logits (T, B, Y) of a batch, on the host.
    fn forward(&mut self, theta: &Tensor, batch: &Batch) -> Result<&[f32]>;

    /// What the heads do at each step of a batch, for pictures.
    fn trace(&mut self, theta: &Tensor, batch: &Batch) -> Result<Trace>;

    /// As `forward`, and the gradient of the training loss (see `Batch::loss_weights`) into `gradient`,
    /// a tensor like theta. On a card nothing waits for it: the results are there when they are read.
    fn gradient(&mut self, theta: &Tensor, batch: &Batch, gradient: &mut Tensor) -> Result<Logits<'_>>;

    /// Kernels of its device for clip and optimizer, if it has some, for vectors like theta.
    fn update_kernels(&self, _theta: &Tensor) -> Option<Box<dyn DeviceUpdate>> {
        None
    }
}

/// The logits (T, B, Y) that belong to a gradient, where they are.
pub enum Logits<'a> {
    Host(&'a [f32]),
    /// Yet to be computed, perhaps: reading them waits for the device.
    Device(Tensor),
}

/// What the heads do, time-major on the host. Padded steps hold nothing of use; a network without heads has none.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub weightings: Vec<f32>, // (T, B, R + W, N), read heads first
    /// Strength, gate and sharpening of each head.
    pub scalars: Vec<f32>, // (T, B, R + W, 3)
    pub reads: Vec<f32>,      // (T, B, R, M)
    pub erases: Vec<f32>,     // (T, B, W, M)
    pub adds: Vec<f32>,       // (T, B, W, M)
}
