//! Files that are whole or not there.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// The extension of a file that is being written.
pub const TEMPORARY: &str = "tmp";

/// Writes a file so that its name never holds half of it: temporary file in the same directory, sync, rename. A link to a
/// file stays one; what is no file, such as a pipe, is written to as it is.
pub fn write_atomically(path: &Path, data: &[u8]) -> Result<()> {
    if path == Path::new("/dev/stdout") {
        return std::io::stdout().write_all(data).context("cannot write to stdout");
    }
    if fs::metadata(path).is_ok_and(|at| !at.is_file() && !at.is_dir()) {
        return fs::write(path, data).with_context(|| format!("cannot write `{}`", path.display()));
    }
    let file = fs::canonicalize(path).unwrap_or(path.to_path_buf());
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(format!(".{}.{TEMPORARY}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut written = File::create(&temporary)?;
        written.write_all(data)?;
        written.sync_all()?;
        fs::rename(&temporary, &file)?;
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    };
    write().or_else(|error| {
        let _ = fs::remove_file(&temporary);
        Err(error).with_context(|| format!("cannot write `{}`", path.display()))
    })
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}
