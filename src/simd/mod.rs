//! Vector width found at run time. Every kernel is plain Rust, generic over `Arch` and inlined into one of the entry
//! points below, where the compiler may use that entry's instructions. All kernels must be `#[inline(always)]`:
//! a call that is not inlined falls back to the baseline instructions, right but slow.

mod math;

pub use math::Float;

/// The values of a vector that a kernel takes at a time: one 512-bit register of f32. Vectors and the rows of matrices
/// are padded to a multiple of it, so that loops over them have no remainder.
pub const LANES: usize = 16;

/// A set of instructions: what a kernel needs to know of it.
pub trait Arch: Copy + 'static {
    /// The level that runs code written for this set.
    const LEVEL: Level;
    /// 512-bit registers, 32 of them.
    const WIDE: bool;
    /// a * b + c, in one instruction where there is one
    fn fma<F: Float>(a: F, b: F, c: F) -> F;
}

/// No more than the target's baseline.
#[derive(Clone, Copy)]
pub struct Plain;

/// Fused multiply-add with registers of up to 256 bits: AVX2 + FMA, or NEON.
#[derive(Clone, Copy)]
pub struct Fma;

/// AVX-512.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Wide;

impl Arch for Plain {
    const LEVEL: Level = Level::Plain;
    const WIDE: bool = false;
    #[inline(always)]
    fn fma<F: Float>(a: F, b: F, c: F) -> F {
        a * b + c
    }
}

impl Arch for Fma {
    #[cfg(target_arch = "x86_64")]
    const LEVEL: Level = Level::Avx2;
    #[cfg(target_arch = "aarch64")]
    const LEVEL: Level = Level::Neon;
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    const LEVEL: Level = Level::Plain; // nothing runs as Fma there
    const WIDE: bool = false;
    #[inline(always)]
    fn fma<F: Float>(a: F, b: F, c: F) -> F {
        a.mul_add(b, c)
    }
}

#[cfg(target_arch = "x86_64")]
impl Arch for Wide {
    const LEVEL: Level = Level::Avx512;
    const WIDE: bool = true;
    #[inline(always)]
    fn fma<F: Float>(a: F, b: F, c: F) -> F {
        a.mul_add(b, c)
    }
}

/// The instruction sets this machine can have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Level {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Level {
    /// All that this machine can run, the fastest last.
    pub fn available() -> Vec<Level> {
        let all = [
            Level::Plain,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512,
            #[cfg(target_arch = "aarch64")]
            Level::Neon,
        ];
        all.into_iter().filter(|level| level.is_available()).collect()
    }

    /// Whether this machine can run it.
    fn is_available(self) -> bool {
        match self {
            Level::Plain => true,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                Level::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
            }
            #[cfg(target_arch = "aarch64")]
            Level::Neon => true, // part of every aarch64
        }
    }

    /// The fastest one that this machine can run.
    pub fn best() -> Level {
        *Level::available().last().expect("there is always the plain one")
    }
}

/// Whether `best` rounds a multiply-add once. Elementwise work and sums in a fixed order give the same bits on all that
/// do.
pub fn has_fma() -> bool {
    Level::best() != Level::Plain
}

/// Work that runs on any instruction set.
pub trait Work {
    fn run<A: Arch>(self);
}

/// Runs work with the instructions of a level. Panics if this machine lacks them.
pub fn run(level: Level, work: impl Work) {
    assert!(level.is_available(), "this machine has no {level:?}");
    match level {
        Level::Plain => work.run::<Plain>(),
        // SAFETY: checked above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2(work) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512(work) },
        #[cfg(target_arch = "aarch64")]
        Level::Neon => work.run::<Fma>(), // part of every aarch64
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
fn avx2(work: impl Work) {
    work.run::<Fma>();
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512dq")]
fn avx512(work: impl Work) {
    work.run::<Wide>();
}
