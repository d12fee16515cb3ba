use crate::checkpoint::Checkpoint;
use crate::cli::{Export, Format};
use crate::display::say;
use crate::export::{npz, safetensors};
use anyhow::{Result, bail};

pub fn run(flags: Export) -> Result<()> {
    let output = &flags.output;
    if output.exists() && !flags.force {
        bail!("`{}` exists already\nhint: --force overwrites it", output.display());
    }
    let checkpoint = Checkpoint::load(&flags.checkpoint)?;
    match flags.format {
        Format::Safetensors => safetensors::write(&checkpoint, output)?,
        Format::Npz => npz::write(&checkpoint, output)?,
    }
    say(&format!("wrote {}", output.display()));
    Ok(())
}
