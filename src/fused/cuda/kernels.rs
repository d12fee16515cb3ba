//! The kernels' source, and what they take.

use crate::model::SHARPEN_EPSILON;
use crate::ops::COSINE_EPSILON;
use anyhow::Result;

/// The files of `kernels/` in order, one source.
const FILES: &[(&str, &str)] = &[
    ("machine.cu", include_str!("kernels/machine.cu")),
    ("threads.cu", include_str!("kernels/threads.cu")),
    ("product.cu", include_str!("kernels/product.cu")),
    ("controller.cu", include_str!("kernels/controller.cu")),
    ("addressing.cu", include_str!("kernels/addressing.cu")),
    ("memory.cu", include_str!("kernels/memory.cu")),
    ("forward.cu", include_str!("kernels/forward.cu")),
    ("backward.cu", include_str!("kernels/backward.cu")),
    ("loss.cu", include_str!("kernels/loss.cu")),
    ("update.cu", include_str!("kernels/update.cu")),
];

/// One source of all kernels, in which the compiler's messages name the files. Constants come from here, and structs
/// that are here, too, must be as large.
pub fn source() -> String {
    let constants = format!(
        "#define COSINE_EPSILON real({COSINE_EPSILON:e})\n#define SHARPEN_EPSILON real({SHARPEN_EPSILON:e})\n\
         #define NORM_BLOCKS {NORM_BLOCKS}\n#define MOST_SUMS {MOST_SUMS}\n"
    );
    let files = FILES.iter().map(|(name, text)| format!("#line 1 \"{name}\"\n{text}"));
    let sizes = [("Sizes", size_of::<Sizes>()), ("Buffers", size_of::<Buffers>()), ("Update", size_of::<Update>())];
    let alike =
        sizes.map(|(name, size)| format!("static_assert(sizeof({name}) == {size}, \"as kernels.rs has it\");\n"));
    [constants].into_iter().chain(files).chain(alike).collect()
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
    pub const ALL: [Kernel; 6] =
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
    ///
    /// # Safety
    ///
    /// The addresses are those of fields as `sizes` has them, on this launcher's device, which nothing else uses until
    /// the kernel has run: libtorch's, which frees memory in the order of its stream.
    unsafe fn launch(&self, kernel: Kernel, grid: Grid, sizes: &Sizes, buffers: &Buffers) -> Result<()>;

    /// Makes ready what kernels of these sizes need, or says why it cannot.
    fn prepare(&self, _sizes: &Sizes) -> Result<()> {
        Ok(())
    }

    /// Queues `Norm` or `Update`, with no more threads a block than `blocks` ever gives: all kernels are compiled for
    /// that many.
    ///
    /// # Safety
    ///
    /// As `launch`, of vectors as long as the update says.
    unsafe fn launch_update(&self, kernel: Kernel, grid: Grid, update: &Update) -> Result<()>;

    /// How blocks should run a batch of this many sequences.
    fn blocks(&self, sequences: usize) -> Blocks;

    /// Whether kernels of these sizes have been compared with the CPU's engine, or need not be.
    fn is_proven(&self, _sizes: &Sizes) -> bool {
        true
    }

    /// They have been.
    fn set_proven(&self, _sizes: &Sizes) {}
}

/// How a launcher's blocks run a batch.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    pub threads: usize,
    /// Threads of a warp.
    pub lanes: usize,
    /// Sequences of a block: 1, 2, 4 or 8.
    pub together: usize,
    /// Blocks that a multiprocessor shall run at once.
    pub at_once: usize,
    /// The most bytes of shared memory of a block.
    pub shared: usize,
}

impl Blocks {
    /// What measured best on an H100, for a card of so many multiprocessors, with `shared` bytes of shared memory for a
    /// block.
    pub fn on_card(sequences: usize, multiprocessors: usize, shared: usize) -> Blocks {
        let lanes = 32;
        match sequences.div_ceil(multiprocessors) {
            0 | 1 => Blocks { threads: 384, lanes, together: 1, at_once: 1, shared },
            2 => Blocks { threads: 384, lanes, together: 2, at_once: 1, shared },
            // a multiprocessor keeps 1 kB a block for itself
            _ => Blocks { threads: 256, lanes, together: 4, at_once: 2, shared: (shared + 1024) / 2 - 1024 },
        }
    }
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
    /// How blocks run it, see `Blocks`; forward and backward the memories and the weights that one has in shared
    /// memory.
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
    pub loss_weights: u64,
    pub lengths: u64,
    pub first_row: u64,
    pub first_snapshot: u64,
    pub order: u64,
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
    pub scale: f32,
    pub floor: f32,
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
    pub logit_count: i64,
    pub size: i32,
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

/// Blocks that share the sum of the gradient's squares.
pub const NORM_BLOCKS: usize = 64;

/// The most sums that a team of warps makes at once: a power of two.
pub(super) const MOST_SUMS: usize = 8;

impl Sizes {
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
