//! Formats for other programs, a file each.

pub mod npz;
pub mod safetensors;
