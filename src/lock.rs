//! One process trains in a directory, and begins in none that holds something to go on with.

use crate::terminal::shell_path;
use anyhow::{Context, Error, Result, anyhow, bail};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

const LOCK: &str = "lock";

/// Held as long as this process trains in a directory; the system lets go of it however the process ends.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Keeps other processes from training in a directory.
    pub fn take(directory: &Path) -> Result<Lock> {
        let path = directory.join(LOCK);
        let cannot = || format!("cannot lock `{}`", path.display());
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).with_context(cannot)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).with_context(cannot)?;
                Ok(Lock { _file: file })
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder); // the number is a courtesy
                bail!(
                    "`{}` is in use: process {holder} trains there\nhint: wait for it, stop it, or name another directory",
                    directory.display()
                )
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(cannot),
        }
    }
}

/// The refusal to begin in a directory where something, in words, can go on.
pub fn occupied(directory: &Path, what: &str) -> Error {
    anyhow!(
        "`{}` holds {what} already\n\
         hint: name another directory with --run-dir, or go on with what is there by `ntm train --resume {}`",
        directory.display(),
        shell_path(directory)
    )
}
