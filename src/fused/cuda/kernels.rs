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
    Backward,
}

impl Kernel {
    pub const ALL: [Kernel; 3] = [Kernel::Pack, Kernel::Forward, Kernel::Backward];

    pub fn name(self) -> &'static std::ffi::CStr {
        match self {
            Kernel::Pack => c"ntm_pack",
            Kernel::Forward => c"ntm_forward",
            Kernel::Backward => c"ntm_backward",
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

    /// Threads of a block where there are this many.
    fn threads(&self, blocks: usize) -> usize;

    /// The most bytes of shared memory of a block.
    fn shared_limit(&self) -> usize;
}

/// `struct Sizes` of machine.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
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
    pub d_shown: u64,
    pub replayed: u64,
    pub spare: u64,
    pub d_start: u64,
    pub pack_count: i32,
    pub segment: i32,
    pub keep: i32,
    pub in_shared: i32,
}

impl Sizes {
    /// Of a network between inputs and outputs of these widths.
    pub fn of(config: &Config, input_width: usize, output_width: usize) -> Sizes {
        Sizes::new(&Plan::new(config, input_width, output_width))
    }

    pub(super) fn new(plan: &Plan) -> Sizes {
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
        }
    }

    /// As the kernels take them for constants: NTM_SIZES=...
    pub fn constants(&self) -> String {
        let Sizes { x, n, m, h, s, reads, writes, layers, recurrent, key_tanh, add_tanh } = self;
        format!("{x},{n},{m},{h},{s},{reads},{writes},{layers},{recurrent},{key_tanh},{add_tanh}")
    }
}

/// The shared memory of a block in values: without its memories, and of one memory.
pub struct Shared {
    pub vectors: usize,
    pub memories: usize,
}

impl Shared {
    /// What `ntm_forward` takes.
    pub fn forward(plan: &Plan, threads: usize) -> Shared {
        let rows = plan.all_heads() * plan.n;
        let outputs = widest(plan, |dense| dense.outputs).max(plan.heads.outputs);
        let z = plan.controller.iter().map(|dense| dense.inputs).sum();
        let layers = plan.controller.len() * plan.h;
        let sizes = [z, layers, plan.output.inputs, plan.heads.outputs, rows, rows, rows, plan.n];
        Shared::new(&sizes, outputs, threads, plan.m * plan.n)
    }

    /// What `ntm_backward` takes; between write heads and before them there are memories, too.
    pub fn backward(plan: &Plan, threads: usize) -> Shared {
        let rows = plan.all_heads() * plan.n;
        let layers = plan.controller.len() * plan.h;
        let inputs = widest(plan, |dense| dense.inputs).max(plan.heads.inputs);
        let (reads, emitted, outputs) =
            (plan.read_heads * plan.m, plan.heads.outputs, widest(plan, |dense| dense.outputs));
        let sizes = [rows, reads, layers, layers, emitted, emitted, outputs, plan.h, rows, rows, rows, rows];
        Shared::new(&sizes, inputs, threads, (1 + plan.write_heads.max(1)) * plan.m * plan.n)
    }

    fn new(sizes: &[usize], widest: usize, threads: usize, memories: usize) -> Shared {
        let padded = |size: usize| size.next_multiple_of(4);
        let partial = padded(widest).max(4 * threads);
        Shared { vectors: sizes.iter().map(|&size| padded(size)).sum::<usize>() + partial, memories: padded(memories) }
    }

    /// With all memories.
    pub fn bytes(&self, kind: Kind) -> usize {
        (self.vectors + self.memories) * kind.elt_size_in_bytes()
    }

    /// With or without them.
    pub fn used(&self, in_shared: bool, kind: Kind) -> usize {
        if in_shared { self.bytes(kind) } else { self.vectors * kind.elt_size_in_bytes() }
    }
}

fn widest(plan: &Plan, of: impl Fn(&Dense) -> usize) -> usize {
    plan.controller.iter().map(of).max().unwrap_or(0)
}
