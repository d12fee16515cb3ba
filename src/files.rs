//! Files that are whole or not there.

use crate::terminal::shell_path;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// The extension of a file that is being written.
const TEMPORARY: &str = "tmp";

/// Writes a file so that its name never holds half of it: temporary file in the same directory, sync, rename. A link to
/// a file stays one; what is no file, such as a pipe, is written to as it is.
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

/// Refuses a path, the value of a flag, that no file can be written to, before the work that makes the file.
pub fn can_be_written(path: &Path, flag: &str) -> Result<()> {
    let shown = path.display();
    if path.is_dir() {
        bail!("`{flag} {shown}` is a directory\nhint: name a file in it");
    }
    match path.parent() {
        Some(parent) if parent != Path::new("") && !parent.is_dir() => {
            if parent.exists() {
                bail!("`{flag} {shown}`: `{}` is no directory\nhint: name a file in one", parent.display());
            }
            let (shown_parent, quoted) = (parent.display(), shell_path(parent));
            bail!("`{flag} {shown}`: there is no directory `{shown_parent}`\nhint: `mkdir -p {quoted}`")
        }
        _ => Ok(()),
    }
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

/// Removes what processes of ours left that were killed while they wrote one of `names`. Nobody else writes these where
/// we hold the lock; other files of the directory are the user's.
pub fn clear_unfinished(directory: &Path, names: &[&str]) {
    let ours = |name: &str| {
        let parts = name.strip_suffix(TEMPORARY).and_then(|name| name.strip_suffix('.')?.rsplit_once('.'));
        parts.is_some_and(|(file, process)| names.contains(&file) && process.parse::<u32>().is_ok())
    };
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(ours) {
            let _ = fs::remove_file(entry.path()); // in the way of nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_write_of_ours_left_is_cleared_and_files_of_the_user_stay() {
        let directory = tempfile::tempdir().unwrap();
        let theirs =
            ["notes.tmp", "latest.safetensors.tmp", "latest.safetensors.1x.tmp", "data.json.12.tmp", "metrics.jsonl"];
        for name in theirs.iter().chain(&["latest.safetensors.123.tmp", "recipe.json.7.tmp"]) {
            fs::write(directory.path().join(name), "").unwrap();
        }
        clear_unfinished(directory.path(), &["latest.safetensors", "recipe.json", "metrics.jsonl"]);
        let mut left: Vec<String> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected = theirs.map(String::from);
        expected.sort();
        assert_eq!(left, expected);
    }
}
