//! The same recipe and seed give the same weights and reports, however many threads work and however often they are interrupted.

use crate::common::{Ran, TINY, assert_same_tensors, command, lines, send, succeeds, timeless, wait_for_reports};
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;

const LATEST: &str = "checkpoints/latest.safetensors";

/// Batches of several sequences, which threads share.
fn train(threads: u64, sequences: u64, run: &str) -> String {
    let tiny = TINY.replace("--threads 1", &format!("--threads {threads}"));
    format!("train {tiny} --set training.batch_size=6 --sequences {sequences} --run-dir {run}")
}

fn assert_same_run(left: &Path, right: &Path) {
    assert_same_tensors(&left.join(LATEST), &right.join(LATEST));
    let reports = |run: &Path| -> Vec<Value> { timeless(&run.join("metrics.jsonl")) };
    assert_eq!(reports(left), reports(right));
}

#[test]
fn one_two_and_five_threads_give_the_same_weights_and_reports() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    for threads in [1, 2, 5] {
        succeeds(here, &train(threads, 300, &format!("run-{threads}")));
    }
    assert_same_run(&here.join("run-1"), &here.join("run-2"));
    assert_same_run(&here.join("run-1"), &here.join("run-5"));
}

#[test]
fn a_run_interrupted_three_times_with_other_threads_gives_the_same_weights_and_reports() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let run = here.join("run");
    for threads in [1, 2, 1] {
        let line = if run.exists() {
            format!("train --resume run --threads {threads}")
        } else {
            train(threads, 1_000_000_000, "run")
        };
        let reports = std::fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
        let child = command(here, &line).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_reports(&run, reports + 3);
        send(&child, libc::SIGTERM);
        let ran = Ran::new(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(143), "{}", ran.stderr);
    }
    let total = (lines(&run.join("metrics.jsonl")).last().unwrap()["step"].as_u64().unwrap() + 20) * 6;
    succeeds(here, &format!("train --resume run --sequences {total} --threads 2"));
    succeeds(here, &train(1, total, "uninterrupted"));
    assert_same_run(&run, &here.join("uninterrupted"));
}
