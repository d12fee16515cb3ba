//! The header of a checkpoint: what a safetensors library says of it, and what one leaves unsaid.

use super::FORMAT;
use anyhow::{Result, anyhow, bail};
use safetensors::tensor::SafeTensors;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// The metadata of a file of ours, whose header names no tensor twice.
pub fn metadata(data: &[u8]) -> Result<HashMap<String, String>> {
    let (length, header) = SafeTensors::read_metadata(data).map_err(|error| {
        anyhow!("no safetensors header ({error:?})\nhint: `ntm train` writes checkpoints to RUN/checkpoints/")
    })?;
    let metadata = header.metadata().clone().unwrap_or_default();
    match metadata.get("format").map(String::as_str) {
        Some(FORMAT) => {}
        Some(other) => {
            bail!("its format is `{other}`, this program reads `{FORMAT}`\nhint: use the version of ntm that wrote it")
        }
        None => bail!("a safetensors file, but not written by ntm: its metadata has no `format`"),
    }
    serde_json::Deserializer::from_slice(&data[8..8 + length]).deserialize_map(Unique)?;
    Ok(metadata)
}

/// An object that has no key twice. The library's map keeps the last and says nothing.
struct Unique;

impl<'de> Visitor<'de> for Unique {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some((name, IgnoredAny)) = map.next_entry::<String, _>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format!("its header has `{name}` twice")));
            }
            names.insert(name);
        }
        Ok(())
    }
}
