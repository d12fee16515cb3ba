//! Checkpoints of tests, damaged but for their checksums.

use serde_json::Value;

/// The header of a checkpoint's file with the right checksums of the texts in it, without which few damaged ones would
/// get past them; none if it is too damaged.
pub fn resealed(header: &[u8]) -> Option<Vec<u8>> {
    let mut header: Value = serde_json::from_slice(header).ok()?;
    let texts = header.get_mut("__metadata__")?;
    let mut checksums: Value = serde_json::from_str(texts.get("checksums")?.as_str()?).ok()?;
    for name in ["recipe", "progress"] {
        *checksums.get_mut(name)? = crc32fast::hash(texts.get(name)?.as_str()?.as_bytes()).into();
    }
    texts["checksums"] = checksums.to_string().into();
    Some(header.to_string().into_bytes())
}
