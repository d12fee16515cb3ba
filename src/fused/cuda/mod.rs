//! The fused engine on a CUDA card: one launch forward, one backward, small ones for weights and loss, and libtorch's
//! matrix products for the output layer and the weight gradients. Everything stays on the card until somebody asks for
//! it.

mod batch;
mod cache;
mod card;
pub mod compiler;
mod fields;
mod kernels;
mod maps;
pub mod nvrtc;
mod proof;
mod shape;
mod tape;
mod trace;
mod update;

pub use card::Card;
pub use kernels::{Blocks, Buffers, Grid, Kernel, Launcher, NORM_BLOCKS, Sizes, Update, source};
pub use shape::Shape;
pub use update::UpdateKernels;

use crate::engine::{Engine, EngineKind, Logits, Trace};
use crate::fused::plan::Plan;
use crate::model::{CONSTANT_MEMORY, Spec};
use crate::optim::DeviceUpdate;
use crate::tasks::Batch;
use anyhow::{Result, anyhow};
use batch::Given;
use fields::Fields;
use maps::Maps;
use std::rc::Rc;
use tape::Tape;
use tch::{Device, Kind, Tensor};

/// Bytes of memories that a batch may keep, one a step; if it needs more, only every sqrt(T)-th is kept, the others
/// replayed.
const SNAPSHOT_BYTES: usize = 1 << 30;

pub struct CudaFused {
    plan: Plan,
    maps: Maps,
    launcher: Rc<dyn Launcher>,
    options: (Kind, Device),
    snapshot_bytes: usize,
    packed: Tensor,
    pack_first: Tensor,
    pack_second: Tensor,
    unpack: Tensor,
    /// All gradients, as `Maps` orders them.
    flat: Tensor,
    tape: Tape,
    /// Where batches are put together.
    batch: Tensor,
    logits: Vec<f32>,
    /// Whether it runs in a proof.
    proving: bool,
}

/// A forward pass: what it was given, and what a backward pass goes on with.
struct Pass {
    _given: Given,
    fields: Fields,
    shape: Shape,
    buffers: Buffers,
    first_weighting: Tensor, // (R + W, N)
    d_logits: Tensor,        // (rows, Y)
    logits: Tensor,          // (T, B, Y), padding has 0
    /// Kept, as their addresses are in `buffers`.
    _kept: [Tensor; 2],
}

/// How a launcher's blocks run a batch of this many sequences.
fn shape(plan: &Plan, launcher: &dyn Launcher, sequences: usize, kind: Kind) -> Result<Shape> {
    let single = launcher.blocks(1);
    Shape::new(plan, launcher.blocks(sequences), single, kind).map_err(|needed| {
        anyhow!("a sequence of this machine needs {needed} bytes of shared memory, this card has {}", single.shared)
    })
}

impl CudaFused {
    /// An engine for f32 weights on the card of a number, which proves itself there. An error says why there can be
    /// none.
    pub fn on_card(spec: Spec, index: usize) -> Result<CudaFused> {
        // first, so that libtorch holds the card's context, which a machine that is refused would give up otherwise
        let _held = Tensor::f_zeros([1], (Kind::Float, Device::Cuda(index)))?;
        let card = Card::new(index)?;
        let mut engine = CudaFused::new(spec, Rc::new(card), (Kind::Float, Device::Cuda(index)))?;
        engine.prove(1)?;
        Ok(engine)
    }

    /// An engine for weights of a kind on a device, which must be the launcher's. An error if a block's vectors do not
    /// fit its shared memory.
    pub fn new(spec: Spec, launcher: Rc<dyn Launcher>, options: (Kind, Device)) -> Result<CudaFused> {
        let plan = Plan::new(spec);
        launcher.prepare(&shape(&plan, &*launcher, 1, options.0)?.sizes)?;
        let maps = Maps::new(&plan);
        let device = options.1;
        let flat = Tensor::f_zeros([maps.size() as i64], options)?;
        Ok(CudaFused {
            packed: Tensor::f_empty([maps.pack_first.len() as i64], options)?,
            pack_first: Tensor::from_slice(&maps.pack_first).to_device(device),
            pack_second: Tensor::from_slice(&maps.pack_second).to_device(device),
            unpack: Tensor::from_slice(&maps.unpack).to_device(device),
            tape: Tape::new(options),
            batch: Tensor::f_empty([0], (Kind::Float, Device::Cpu))?,
            logits: vec![],
            proving: false,
            snapshot_bytes: SNAPSHOT_BYTES,
            plan,
            maps,
            launcher,
            options,
            flat,
        })
    }

    /// The same engine with room for this many bytes of memories.
    pub fn with_snapshot_bytes(self, snapshot_bytes: usize) -> CudaFused {
        CudaFused { snapshot_bytes, ..self }
    }

    /// theta (layout.size()) -> logits (T, B, Y) on the device; padded steps give 0.
    pub fn logits(&mut self, theta: &Tensor, batch: &Batch) -> Result<Tensor> {
        Ok(self.forward_pass(theta, batch, false)?.logits)
    }

    /// As `logits`, and the gradient of the training loss.
    pub fn logits_and_gradient(&mut self, theta: &Tensor, batch: &Batch, gradient: &mut Tensor) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let pass = self.forward_pass(theta, batch, true)?;
        self.backward_pass(theta, batch, &pass)?;
        self.parameter_gradients(&pass, gradient)?;
        Ok(pass.logits)
    }

    /// Steps between two memories that are kept.
    fn segment(&self, batch: &Batch) -> usize {
        let cells = self.plan.m * self.plan.n * self.options.0.elt_size_in_bytes();
        let fit = batch.lengths.iter().sum::<usize>() * cells <= self.snapshot_bytes;
        if fit { 1 } else { (batch.steps as f64).sqrt().ceil() as usize }
    }

    /// All steps forward. `keep`: the tape keeps what a backward pass and a trace need.
    fn forward_pass(&mut self, theta: &Tensor, batch: &Batch, keep: bool) -> Result<Pass> {
        self.plan.check(theta.numel(), batch);
        let _guard = tch::no_grad_guard();
        let (size, segment) = (batch.size(), self.segment(batch));
        let shape = shape(&self.plan, &*self.launcher, size, self.options.0)?;
        self.prove_shape(&shape, size)?;
        let given = Given::new(batch, self.plan.y, segment, &mut self.batch, self.options)?;
        let fields = self.lay_out(&given, &shape, size, segment, keep)?;

        let first = [self.first_memory(theta), self.first_weighting(theta)];
        let buffers = Buffers {
            segment: segment as i32,
            keep: keep as i32,
            ..self.buffers(theta, batch, &given, &fields, &first)
        };
        let pack = self.maps.pack_first.len().div_ceil(256).clamp(1, 1024);
        self.launch(Kernel::Pack, pack, 0, &shape, &buffers)?;
        self.launch(Kernel::Forward, size.div_ceil(shape.together()), shape.shared[0], &shape, &buffers)?;

        // logits = W [h, r] + b
        let plan = &self.plan;
        let (weight, bias) = self.output_layer(theta);
        let seen = self.tape.view(fields.shown).narrow(1, 1, plan.output.inputs as i64 - 1);
        let rows = bias.f_addmm(&seen, &weight.tr())?;
        let d_logits = Tensor::f_empty(if keep { rows.size() } else { vec![0] }, self.options)?;
        let logits = Tensor::f_empty([batch.steps as i64, size as i64, plan.y as i64], self.options)?;
        let at = |tensor: &Tensor| tensor.data_ptr() as u64;
        let buffers = Buffers { logits: at(&rows), d_logits: at(&d_logits), placed: at(&logits), ..buffers };
        self.launch(Kernel::Loss, size, 0, &shape, &buffers)?;
        let [first_memory, first_weighting] = first;
        Ok(Pass {
            _given: given,
            fields,
            shape,
            buffers,
            first_weighting,
            d_logits,
            logits,
            _kept: [first_memory, rows],
        })
    }

    fn launch(&self, kernel: Kernel, blocks: usize, values: usize, shape: &Shape, buffers: &Buffers) -> Result<()> {
        let shared = values * self.options.0.elt_size_in_bytes();
        let grid = Grid { blocks, threads: shape.sizes.threads as usize, shared };
        // SAFETY: the buffers are fields of this pass's tape, laid out by these sizes, and tensors that it holds or
        // borrows.
        unsafe { self.launcher.launch(kernel, grid, &shape.sizes, buffers) }
    }

    /// (M, N)
    fn first_memory(&self, theta: &Tensor) -> Tensor {
        let (n, m) = (self.plan.n as i64, self.plan.m as i64);
        match self.plan.starts.memory {
            Some((at, _)) => theta.narrow(0, at as i64, n * m).view([n, m]).tr().contiguous(),
            None => Tensor::full([m, n], CONSTANT_MEMORY, self.options),
        }
    }

    /// (R + W, N)
    fn first_weighting(&self, theta: &Tensor) -> Tensor {
        let (heads, n) = (self.plan.all_heads() as i64, self.plan.n as i64);
        match self.plan.starts.weighting {
            Some(at) => theta.narrow(0, at as i64, heads * n).view([heads, n]).softmax(1, self.options.0),
            None if self.plan.starts.one_hot => {
                let weighting = Tensor::zeros([heads, n], self.options);
                let _ = weighting.narrow(1, 0, 1).fill_(1.0);
                weighting
            }
            None => Tensor::full([heads, n], 1.0 / (n as f64).max(1.0), self.options),
        }
    }

    /// Weight (Y, H + R M) and bias (Y) of the output layer, where they lie in theta.
    fn output_layer(&self, theta: &Tensor) -> (Tensor, Tensor) {
        let of = |name: &str| {
            let parameter = self.plan.layout.get(name);
            theta.narrow(0, parameter.offset as i64, parameter.len() as i64).view(parameter.dims().as_slice())
        };
        (of("output.weight"), of("output.bias"))
    }

    /// All steps backward, from the gradient of the logits.
    fn backward_pass(&self, theta: &Tensor, batch: &Batch, pass: &Pass) -> Result<()> {
        let d_shown = pass.d_logits.f_mm(&self.output_layer(theta).0)?;
        let buffers = Buffers { d_shown: d_shown.data_ptr() as u64, ..pass.buffers };
        let blocks = batch.size().div_ceil(pass.shape.together());
        self.launch(Kernel::Backward, blocks, pass.shape.shared[1], &pass.shape, &buffers)
    }

    /// d_W = sum over all sequences and steps of d_out z^T, for every matrix; then the gradients of the first state,
    /// and all of them to their places in theta's gradient.
    fn parameter_gradients(&mut self, pass: &Pass, gradient: &mut Tensor) -> Result<()> {
        let (plan, fields, tape) = (&self.plan, &pass.fields, &self.tape);
        let (z, gates, shown) = (tape.view(fields.z), tape.view(fields.gates), tape.view(fields.shown));
        let mut pairs: Vec<(Tensor, Tensor)> = vec![];
        let (mut z_at, mut gates_at) = (0, 0);
        for dense in &plan.controller {
            let (outputs, inputs) = (dense.outputs as i64, dense.inputs as i64);
            pairs.push((gates.narrow(1, gates_at, outputs), z.narrow(1, z_at, inputs)));
            (z_at, gates_at) = (z_at + inputs, gates_at + outputs);
        }
        if plan.n > 0 {
            pairs.push((tape.view(fields.heads), shown.narrow(1, 0, 1 + plan.h as i64)));
        }
        pairs.push((pass.d_logits.shallow_clone(), shown));
        for (slot, (d_out, z)) in self.maps.slots.iter().zip(&pairs) {
            let d_w = self.flat.narrow(0, slot.at as i64, (slot.outputs * slot.inputs) as i64);
            let _ = d_out.tr().f_mm_out(&d_w.view([slot.outputs as i64, slot.inputs as i64]), z)?;
        }

        let (start, size) = (self.maps.start as i64, self.maps.start_size as i64);
        let d_start = self.flat.narrow(0, start, size);
        let _ = tape.view(fields.d_start).f_sum_intlist_out(&d_start, &[0i64][..], false, self.options.0)?;
        if plan.starts.weighting.is_some() {
            // w_0 = softmax(..)
            let (y, cells) = (&pass.first_weighting, (plan.m * plan.n) as i64);
            let weightings = y.numel() as i64;
            let mut d = d_start.narrow(0, size - cells - weightings, weightings).view_as(y);
            let mean = (y * &d).f_sum_dim_intlist(&[1i64][..], true, self.options.0)?;
            d.f_copy_(&(y * (&d - mean)))?;
        }
        let _ = self.flat.f_index_select_out(gradient, 0, &self.unpack)?;
        Ok(())
    }
}

impl Engine for CudaFused {
    fn kind(&self) -> EngineKind {
        EngineKind::Fused
    }

    fn update_kernels(&self, theta: &Tensor) -> Option<Box<dyn DeviceUpdate>> {
        Some(Box::new(UpdateKernels::new(self.launcher.clone(), theta)))
    }

    fn forward(&mut self, theta: &Tensor, batch: &Batch) -> Result<&[f32]> {
        let logits = self.logits(theta, batch)?;
        self.logits.resize(logits.numel(), 0.0);
        logits.to_device(Device::Cpu).to_kind(Kind::Float).f_copy_data(&mut self.logits, logits.numel())?;
        Ok(&self.logits)
    }

    fn trace(&mut self, theta: &Tensor, batch: &Batch) -> Result<Trace> {
        self.trace_of(theta, batch)
    }

    fn gradient(&mut self, theta: &Tensor, batch: &Batch, gradient: &mut Tensor) -> Result<Logits<'_>> {
        Ok(Logits::Device(self.logits_and_gradient(theta, batch, gradient)?))
    }
}
