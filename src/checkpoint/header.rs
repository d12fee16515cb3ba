//! The header of a checkpoint: what a safetensors library says of it, and what one leaves unsaid.

use super::FORMAT;
use crate::json::Unique;
use anyhow::{Context, Result, anyhow, bail};
use safetensors::tensor::{SafeTensorError as Said, SafeTensors};
use std::collections::HashMap;

/// The metadata of a file of ours, whose header names no tensor twice.
pub fn metadata(data: &[u8]) -> Result<HashMap<String, String>> {
    let (length, header) = SafeTensors::read_metadata(data).map_err(|error| match error {
        Said::HeaderTooSmall | Said::InvalidHeaderLength | Said::MetadataIncompleteBuffer => {
            anyhow!("it is truncated, or not a safetensors file\nhint: use another checkpoint of the run")
        }
        _ => anyhow!("it is no safetensors file\nhint: `ntm train` writes checkpoints to RUN/checkpoints/"),
    })?;
    let metadata = header.metadata().clone().unwrap_or_default();
    match metadata.get("format").map(String::as_str) {
        Some(FORMAT) => {}
        Some(other) if other.starts_with("ntm/") => {
            bail!("its format is `{other}`, this program reads `{FORMAT}`\nhint: use the version of ntm that wrote it")
        }
        _ => bail!(
            "it is no checkpoint of ntm: its metadata has no `format`\n\
             hint: of an export of ntm, name the checkpoint that it was made from"
        ),
    }
    serde_json::from_slice::<Unique>(&data[8..8 + length]).context("in its header")?;
    Ok(metadata)
}
