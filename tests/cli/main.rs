//! The program as a user runs it: through the binary, in a directory of its own.
#![allow(clippy::unwrap_used)] // helpers of tests are no tests to clippy

#[path = "../common/mod.rs"]
mod common;

mod determinism;
mod disks;
mod kills;
mod nonfinite;
mod own_data;
mod pictures;
mod predict;
mod reading;
mod refusals;
mod restarts;
mod signals;
mod stops;
mod studies;
mod tasks;
mod terminal;
mod training;

use common::{Ran, command, tiny_run};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

#[test]
fn it_starts_from_any_directory_with_an_empty_environment() {
    let directory = tiny_run();
    let run = directory.path().join("run").display().to_string();
    for line in [
        "info copy".to_string(),
        format!("eval --checkpoint {run}/checkpoints/latest.safetensors --sequences 2 --threads 1"),
        format!("train --resume {run} --sequences 25 --threads 1"),
    ] {
        let ran = Ran::new(command(Path::new("/"), &line).env_clear().output().unwrap());
        assert_eq!(ran.code, Some(0), "ntm {line}\n{}", ran.stderr);
    }
}

#[test]
fn the_version_goes_to_stdout() {
    assert_eq!(common::succeeds(Path::new("/"), "--version").stdout, format!("ntm {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_reader_that_closes_the_pipe_is_no_reason_to_panic() {
    // a sample of more than the pipe takes, so that some is written after the reader has left
    let mut child =
        command(Path::new("/"), "info copy --sample --lengths 5000").stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGPIPE));
}

#[test]
fn training_goes_on_when_nobody_reads_its_stderr_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let line = format!("train {} --sequences 20 --run-dir run", common::TINY);
    let mut child = command(directory.path(), &line).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(common::lines(&directory.path().join("run/metrics.jsonl")).len(), 4);
}
