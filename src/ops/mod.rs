//! The two custom operations of the machine, on libtorch tensors of any device and floating-point kind.

mod circular_convolution;
mod cosine_similarity;

pub use circular_convolution::circular_convolution;
pub use cosine_similarity::{COSINE_EPSILON, cosine_similarity};
