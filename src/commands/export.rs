use crate::checkpoint::{Checkpoint, write_atomically};
use crate::cli::{Export, Format};
use crate::display::say;
use crate::export::{npz, safetensors, torchscript};
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
        Format::Torchscript => {
            let (bytes, difference) = torchscript::encode(&checkpoint)?;
            write_atomically(output, &bytes)?;
            say(&format!("its logits differ from the engine's by at most {difference:.0e}"));
        }
    }
    say(&format!("wrote {}", output.display()));
    Ok(())
}
