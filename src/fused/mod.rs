//! The machine as one operation over whole sequences, with a gradient derived by hand: `derivation.md` beside this file.
//! The same function as `crate::model`, which defines it, and the tests hold them together.

mod cpu;
pub mod cuda;
mod plan;

pub use cpu::{Fused, activations};
pub use cuda::CudaFused;
