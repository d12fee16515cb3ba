//! `ntm export`: a trained machine in a format that other programs read.

use super::{trained, usage};
use crate::cli::{Export, Format, OnnxGraph};
use crate::export::{npz, onnx, safetensors, torchscript};
use crate::files::{can_be_written, write_atomically};
use crate::terminal::say;
use anyhow::{Result, bail};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub fn run(flags: Export) -> Result<()> {
    if flags.onnx_graph.is_some() && flags.format != Format::Onnx {
        return usage("`--onnx-graph` goes with `--format onnx` alone");
    }
    let output = &flags.output;
    can_be_written(output, "--output")?;
    if output.is_file() && !flags.force {
        bail!("`{}` exists already\nhint: --force overwrites it", output.display());
    }
    let (file, checkpoint) = trained(&flags.trained)?;
    let place = |path: &Path| fs::metadata(path).ok().map(|at| (at.dev(), at.ino()));
    if output.exists() && place(output) == place(&file) {
        bail!("`{}` is the checkpoint itself\nhint: name another file", output.display());
    }
    let bytes = match flags.format {
        Format::Safetensors => safetensors::encode(&checkpoint)?,
        Format::Npz => npz::encode(&checkpoint)?,
        Format::Torchscript => {
            let (bytes, difference) = torchscript::encode(&checkpoint)?;
            say(&format!("its logits differ from the machine's by at most {difference:.0e}"));
            bytes
        }
        Format::Onnx => match flags.onnx_graph.unwrap_or(OnnxGraph::Sequence) {
            OnnxGraph::Sequence => onnx::sequence(&checkpoint)?,
            OnnxGraph::Step => onnx::step(&checkpoint)?,
            OnnxGraph::Init => onnx::init(&checkpoint)?,
        },
    };
    write_atomically(output, &bytes)?;
    say(&format!("wrote `{}`", output.display()));
    Ok(())
}
