//! The kernels compiled for a card, by NVRTC.

use super::kernels::{Sizes, source};
use super::nvrtc;
use anyhow::{Context, Result};

/// The options for machines of these sizes on cards of an architecture, `sm_90` for instance; and those of the
/// environment, for those who profile the kernels: NTM_NVRTC_OPTIONS, with spaces between them.
pub fn options(sizes: &Sizes, architecture: &str) -> Vec<String> {
    let own = [
        format!("--gpu-architecture={architecture}"),
        "--std=c++17".to_string(),
        "--generate-line-info".to_string(), // for profilers; the code is the same
        format!("-DNTM_SIZES={}", sizes.constants()),
        format!("-DNTM_ROWS={}", sizes.n),
        format!("-DNTM_THREADS={}", sizes.threads),
        format!("-DNTM_BLOCKS={}", sizes.blocks),
    ];
    let more = std::env::var("NTM_NVRTC_OPTIONS").unwrap_or_default();
    own.into_iter().chain(more.split_whitespace().map(str::to_string)).collect()
}

/// The version of the compiler: another one may make other code of the same source.
pub fn version() -> Result<(i32, i32)> {
    nvrtc::open(None)?.version()
}

/// The kernels as machine code for an `sm_` architecture, or as PTX for a `compute_` one. Also what the compiler said.
pub fn compile(options: &[String]) -> Result<(Vec<u8>, String)> {
    let to_ptx = options.iter().any(|option| option.contains("=compute_"));
    let compiled = nvrtc::open(None)?.compile(&source(), options, to_ptx);
    compiled.with_context(|| format!("NVRTC refuses the kernels with {}", options.join(" ")))
}
