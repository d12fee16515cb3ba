//! The definition as an engine: the network under libtorch's autograd.

use crate::engine::{Engine, EngineKind, Logits, Trace};
use crate::flat::upload;
use crate::model::{Config, Layout, Network, Parameters, Spec};
use crate::tasks::{Batch, Loss};
use anyhow::Result;
use tch::{Device, Kind, Reduction, Tensor};

pub struct Composed {
    config: Config,
    layout: Layout,
    input_width: i64,
    output_width: i64,
    logits: Vec<f32>,
}

impl Composed {
    pub fn new(spec: Spec) -> Composed {
        Composed {
            config: spec.config.clone(),
            layout: Layout::new(spec),
            input_width: spec.input_width as i64,
            output_width: spec.output_width as i64,
            logits: vec![],
        }
    }

    /// theta (layout.size()) -> logits (T, B, Y), on theta's device and in its kind
    pub fn logits(&self, theta: &Tensor, batch: &Batch) -> Tensor {
        let inputs = tensor(&batch.inputs, batch, self.input_width, theta);
        self.network(theta, batch).forward(&inputs)
    }

    fn network(&self, theta: &Tensor, batch: &Batch) -> Network {
        Network::new(&self.config, &Parameters::new(&self.layout, theta), batch.blur)
    }

    /// The training loss (a scalar): the weighted sum of the sigmoid cross-entropies, or squared errors, of all
    /// outputs.
    pub fn loss(&self, logits: &Tensor, batch: &Batch) -> Tensor {
        let targets = tensor(&batch.targets, batch, self.output_width, logits);
        let weights = tensor(&batch.loss_weights(self.output_width as usize), batch, 1, logits);
        match batch.loss {
            Loss::CrossEntropy => {
                let weights = weights.expand_as(logits);
                logits.binary_cross_entropy_with_logits(&targets, Some(&weights), None, Reduction::Sum)
            }
            Loss::Squared => (weights * (logits - targets).square()).sum(logits.kind()),
        }
    }

    fn keep(&mut self, logits: &Tensor) -> Result<&[f32]> {
        self.logits.resize(logits.numel(), 0.0);
        let logits = logits.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
        logits.f_copy_data(&mut self.logits, logits.numel())?;
        Ok(&self.logits)
    }
}

/// Appends one value per head, each (B, width), to a trace as (B, heads, width).
fn append<'a>(values: &mut Vec<f32>, heads: impl Iterator<Item = &'a Tensor>) -> Result<()> {
    let heads: Vec<&Tensor> = heads.collect();
    let stacked = Tensor::stack(&heads, 1).to_device(Device::Cpu).to_kind(Kind::Float).reshape(-1);
    values.extend(Vec::<f32>::try_from(stacked)?);
    Ok(())
}

/// Values of a batch as a tensor (T, B, width) beside another one.
fn tensor(values: &[f32], batch: &Batch, width: i64, beside: &Tensor) -> Tensor {
    let shape = [batch.steps as i64, batch.size() as i64, width];
    let values = upload(&Tensor::from_slice(values), (beside.kind(), beside.device()));
    values.unwrap_or_else(|error| panic!("{error}")).view(shape)
}

impl Engine for Composed {
    fn kind(&self) -> EngineKind {
        EngineKind::Composed
    }

    fn forward(&mut self, theta: &Tensor, batch: &Batch) -> Result<&[f32]> {
        let logits = tch::no_grad(|| self.logits(theta, batch));
        self.keep(&logits)
    }

    fn trace(&mut self, theta: &Tensor, batch: &Batch) -> Result<Trace> {
        let _guard = tch::no_grad_guard();
        let mut trace = Trace::default();
        let Network::Ntm(network) = self.network(theta, batch) else { return Ok(trace) };
        let mut state = network.initial_state(batch.size() as i64);
        for input in tensor(&batch.inputs, batch, self.input_width, theta).unbind(0) {
            state = network.step(&input, &state).1;
            append(&mut trace.weightings, state.weightings.iter())?;
            let scalars: Vec<Tensor> =
                state.addressings.iter().map(|a| Tensor::cat(&[&a.strength, &a.gate, &a.sharpening], 1)).collect();
            append(&mut trace.scalars, scalars.iter())?;
            append(&mut trace.reads, state.reads.iter())?;
            append(&mut trace.erases, state.edits.iter().map(|edit| &edit.erase))?;
            append(&mut trace.adds, state.edits.iter().map(|edit| &edit.add))?;
        }
        Ok(trace)
    }

    fn gradient(&mut self, theta: &Tensor, batch: &Batch, gradient: &mut Tensor) -> Result<Logits<'_>> {
        let leaf = theta.detach().set_requires_grad(true);
        let logits = self.logits(&leaf, batch);
        let gradients = Tensor::f_run_backward(&[self.loss(&logits, batch)], &[&leaf], false, false)?;
        gradient.f_copy_(&gradients[0])?;
        match logits.device() {
            Device::Cpu => Ok(Logits::Host(self.keep(&logits)?)),
            _ => Ok(Logits::Device(logits.detach())),
        }
    }
}
