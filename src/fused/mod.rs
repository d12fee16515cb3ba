//! The machine as one operation over whole sequences, with a gradient derived by hand: see `derivation.md` beside this
//! file. It is the same function as `crate::model`, which defines it; the tests compare the two.

mod cpu;
pub mod cuda;
mod plan;

pub use cpu::{Fused, activations};
pub use cuda::CudaFused;
