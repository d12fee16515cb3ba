//! The kernels' source, what they take, and how much shared memory a block needs.

use crate::fused::plan::{Dense, Plan};
use crate::model::{Activation, Config};
use anyhow::Result;
use tch::Kind;

/// The files of `kernels/` in order, one source.
const FILES: &[(&str, &str)] = &[
    ("machine.cu", include_str!("kernels/machine.cu")),
    ("product.cu", include_str!("kernels/product.cu")),
    ("controller.cu", include_str!("kernels/controller.cu")),
    ("addressing.cu", include_str!("kernels/addressing.cu")),
    ("memory.cu", include_str!("kernels/memory.cu")),
    ("forward.cu", include_str!("kernels/forward.cu")),
    ("backward.cu", include_str!("kernels/backward.cu")),
    ("loss.cu", include_str!("kernels/loss.cu")),
    ("update.cu", include_str!("kernels/update.cu")),
];

/// One source of all kernels, in which the compiler's messages name the files.
pub fn source() -> String {
    FILES.iter().map(|(name, text)| format!("#line 1 \"{name}\"\n{text}")).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kernel {
    /// theta -> packed weights
    Pack,
    Forward,
    /// Logits -> their gradient, and their places in the batch
    Loss,
    Backward,
    /// The partial sums of the gradient's norm
    Norm,
    /// Clip and optimizer
    Update,
}

impl Kernel {
    pub const COUNT: usize = 6;
    pub const ALL: [Kernel; Kernel::COUNT] =
        [Kernel::Pack, Kernel::Forward, Kernel::Loss, Kernel::Backward, Kernel::Norm, Kernel::Update];

    /// Its place in `ALL`.
    pub fn index(self) -> usize {
        self as usize
    }

    pub fn name(self) -> &'static std::ffi::CStr {
        match self {
            Kernel::Pack => c"ntm_pack",
            Kernel::Forward => c"ntm_forward",
            Kernel::Loss => c"ntm_loss",
            Kernel::Backward => c"ntm_backward",
            Kernel::Norm => c"ntm_norm",
            Kernel::Update => c"ntm_update",
        }
    }
}

/// A launch: blocks of `threads` threads, with `shared` bytes of shared memory each.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    pub blocks: usize,
    pub threads: usize,
    pub shared: usize,
}

/// What runs kernels: a card, or in the tests its emulation.
pub trait Launcher {
    /// Queues a kernel after the work that libtorch has queued on its device.
    fn launch(&self, kernel: Kernel, grid: Grid, sizes: &Sizes, buffers: &Buffers) -> Result<()>;

    /// Makes ready what kernels of these sizes need, or says why it cannot.
    fn prepare(&self, _sizes: &Sizes) -> Result<()> {
        Ok(())
    }

    /// Queues `Norm` or `Update`, any number of threads a block.
    fn launch_update(&self, kernel: Kernel, grid: Grid, update: &Update) -> Result<()>;

    /// How blocks should run a batch of this many sequences.
    fn blocks(&self, sequences: usize) -> Blocks;
}

/// How a launcher's blocks run a batch.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    pub threads: usize,
    /// Sequences of a block: 1, 2, 4 or 8.
    pub together: usize,
    /// Blocks that a multiprocessor shall run at once.
    pub at_once: usize,
    /// The most bytes of shared memory of a block.
    pub shared: usize,
}

/// `struct Sizes` of machine.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sizes {
    pub x: i32,
    pub n: i32,
    pub m: i32,
    pub h: i32,
    pub s: i32,
    pub reads: i32,
    pub writes: i32,
    pub layers: i32,
    pub recurrent: i32,
    pub key_tanh: i32,
    pub add_tanh: i32,
    /// How blocks run it, see `Blocks`; forward and backward the memories and the weights that one has in shared memory.
    pub threads: i32,
    pub blocks: i32,
    pub together: i32,
    pub memories: [i32; 2],
    pub room: [i32; 2],
}

/// `struct Buffers` of machine.cu: addresses, and what goes with them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Buffers {
    pub theta: u64,
    pub packed: u64,
    pub pack_first: u64,
    pub pack_second: u64,
    pub hidden: u64,
    pub cell: u64,
    pub read: u64,
    pub memory: u64,
    pub weighting: u64,
    pub inputs: u64,
    pub targets: u64,
    pub mask: u64,
    pub scale: u64,
    pub lengths: u64,
    pub first_row: u64,
    pub first_snapshot: u64,
    pub z: u64,
    pub gates: u64,
    pub cells: u64,
    pub tanh_cells: u64,
    pub shown: u64,
    pub heads: u64,
    pub similarity: u64,
    pub content: u64,
    pub shifted: u64,
    pub weightings: u64,
    pub inverse_norms: u64,
    pub snapshots: u64,
    pub logits: u64,
    pub d_logits: u64,
    pub placed: u64,
    pub d_shown: u64,
    pub replayed: u64,
    pub spare: u64,
    pub d_start: u64,
    pub pack_count: i32,
    pub sequences: i32,
    pub segment: i32,
    pub keep: i32,
    pub steps: i32,
    pub outputs: i32,
    pub squared: i32,
}

/// `struct Update` of update.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Update {
    pub theta: u64,
    pub states: [u64; 3],
    pub gradient: u64,
    pub logits: u64,
    pub partial: u64,
    pub broken: u64,
    pub told: u64,
    pub size: i32,
    pub logit_count: i32,
    pub turn: i32,
    pub adam: i32,
    pub clip: i32,
    pub at: f32,
    pub rate: f32,
    pub keep_mean: f32,
    pub keep_square: f32,
    pub momentum: f32,
    pub epsilon: f32,
    pub unbias_square: f32,
    pub new_mean: f32,
    pub new_square: f32,
}

/// `NORM_BLOCKS` of update.cu.
pub const NORM_BLOCKS: usize = 64;

impl Sizes {
    /// One sequence a block, with nothing but vectors in shared memory.
    fn new(plan: &Plan) -> Sizes {
        Sizes {
            x: plan.x as i32,
            n: plan.n as i32,
            m: plan.m as i32,
            h: plan.h as i32,
            s: plan.s as i32,
            reads: plan.read_heads as i32,
            writes: plan.write_heads as i32,
            layers: plan.controller.len() as i32,
            recurrent: plan.recurrent as i32,
            key_tanh: (plan.key == Activation::Tanh) as i32,
            add_tanh: (plan.add == Activation::Tanh) as i32,
            threads: 1,
            blocks: 1,
            together: 1,
            memories: [0, 0],
            room: [0, 0],
        }
    }

    /// As the kernels take them for constants: NTM_SIZES=...
    pub fn constants(&self) -> String {
        let Sizes { x, n, m, h, s, reads, writes, layers, recurrent, key_tanh, add_tanh, .. } = self;
        let Sizes { threads, blocks, together, memories: [forward, backward], room: [weights, weights_back], .. } =
            self;
        format!(
            "{x},{n},{m},{h},{s},{reads},{writes},{layers},{recurrent},{key_tanh},{add_tanh},\
            {threads},{blocks},{together},{forward},{backward},{weights},{weights_back}"
        )
    }
}

/// How blocks run a machine: what the kernels are compiled for, and the shared memory of forward and backward in values.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub sizes: Sizes,
    pub shared: [usize; 2],
}

impl Shape {
    /// `new` of a network between inputs and outputs of these widths.
    pub fn of(config: &Config, input_width: usize, output_width: usize, blocks: Blocks) -> Result<Shape, usize> {
        Shape::new(&Plan::new(config, input_width, output_width), blocks, Kind::Float)
    }

    /// The best one for these blocks: memories in shared memory, by fewer sequences together if that makes it possible, and what
    /// is left for weights. Where one sequence does not fit, the bytes that it needs.
    pub(super) fn new(plan: &Plan, blocks: Blocks, kind: Kind) -> Result<Shape, usize> {
        let (cells, limit) = (padded(plan.m * plan.n), blocks.shared / kind.elt_size_in_bytes());
        let Blocks { threads, mut together, .. } = blocks;
        loop {
            let vectors = [forward_vectors(plan, threads, together), backward_vectors(plan, threads, together)];
            let most = vectors.into_iter().max().unwrap_or(0);
            if together == 1 && most > limit {
                return Err(most * kind.elt_size_in_bytes());
            }
            let fitting = |vectors: usize| limit.saturating_sub(vectors) / (together * cells).max(1);
            let memories = [fitting(vectors[0]).min(1), fitting(vectors[1]).min(2)];
            if together > 1 && (most > limit || memories.contains(&0)) {
                together /= 2;
                continue;
            }
            let weights = |back: usize| -> usize {
                let size = |dense: &Dense| {
                    let sizes = [dense.inputs, dense.outputs];
                    sizes[back] * padded(sizes[1 - back])
                };
                plan.controller.iter().chain((plan.n > 0).then_some(&plan.heads)).map(size).sum()
            };
            let used = [0, 1].map(|back| vectors[back] + memories[back] * together * cells);
            let room = [0, 1].map(|back| ((limit - used[back]) / 4 * 4).min(weights(back)));
            let sizes = Sizes {
                threads: threads as i32,
                blocks: blocks.at_once as i32,
                together: together as i32,
                memories: memories.map(|count| count as i32),
                room: room.map(|room| room as i32),
                ..Sizes::new(plan)
            };
            return Ok(Shape { sizes, shared: [used[0] + room[0], used[1] + room[1]] });
        }
    }

    pub fn together(&self) -> usize {
        self.sizes.together as usize
    }
}

fn padded(size: usize) -> usize {
    size.next_multiple_of(4)
}

/// Values of shared memory that `ntm_forward` takes without memories and weights.
fn forward_vectors(plan: &Plan, threads: usize, together: usize) -> usize {
    let rows = plan.all_heads() * plan.n;
    let outputs = widest(plan, |dense| dense.outputs).max(plan.heads.outputs);
    let z: usize = plan.controller.iter().map(|dense| dense.inputs).sum();
    let layers = plan.controller.len() * plan.h;
    vectors(&[1, 1, z, layers, plan.output.inputs, plan.heads.outputs, rows, rows], outputs, threads, together)
}

/// Those of `ntm_backward`.
fn backward_vectors(plan: &Plan, threads: usize, together: usize) -> usize {
    let rows = plan.all_heads() * plan.n;
    let layers = plan.controller.len() * plan.h;
    let inputs = widest(plan, |dense| dense.inputs).max(plan.heads.inputs);
    let (reads, emitted) = (plan.read_heads * plan.m, plan.heads.outputs);
    let outputs = widest(plan, |dense| dense.outputs);
    let passed_on = [1, 1, rows, reads, layers, layers, emitted, outputs, plan.h, plan.all_heads()];
    let gates = plan.controller.iter().map(|dense| dense.outputs).sum();
    let staged = [emitted, rows, rows, rows, rows, rows, plan.n, gates, layers, layers, plan.h + reads];
    vectors(&[&passed_on[..], &staged].concat(), inputs, threads, together)
}

/// Vectors of a sequence, for all of a block, and the partial sums of a product.
fn vectors(sizes: &[usize], widest: usize, threads: usize, together: usize) -> usize {
    let partial = padded(padded(widest) * together).max(4 * together.min(4) * threads);
    let scratch = padded(2 * threads); // at most, where a warp is one thread
    sizes.iter().map(|&size| padded(size * together)).sum::<usize>() + partial + scratch
}

fn widest(plan: &Plan, of: impl Fn(&Dense) -> usize) -> usize {
    plan.controller.iter().map(of).max().unwrap_or(0)
}
