//! Runs that are stopped and go on: interrupted + resumed = uninterrupted, bit for bit.

use crate::common::{
    Ran, TINY, assert_same_tensors, command, lines, progress, refused, send, start, steps, succeeds, timeless,
};
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{fs, thread};

/// A run that ends only when it is stopped. Its reports are no divisor of anything, so stops fall between two.
fn begin() -> String {
    train(1_000_000_000, "run")
}

fn train(sequences: u64, run: &str) -> String {
    format!("train {TINY} --set training.report_every=7 --sequences {sequences} --run-dir {run}")
}

/// Starts a command and sends it a signal once the run has three reports more.
fn stopped_by(signal: i32, directory: &Path, line: &str) -> Ran {
    let metrics = directory.join("run/metrics.jsonl");
    let reports = || fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    let enough = reports() + 3;
    let mut child = start(directory, line);
    let deadline = Instant::now() + Duration::from_secs(60);
    while reports() < enough && Instant::now() < deadline && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(2));
    }
    send(&child, signal);
    let ran = Ran::new(child.wait_with_output().unwrap());
    assert!(reports() >= enough, "it ended, or a minute passed, before it could be stopped:\n{}", ran.stderr);
    ran
}

/// Goes on for so many more sequences, and compares logs and checkpoints with those of a run that never stopped.
fn assert_goes_on_as_if_never_stopped(directory: &Path, more: u64) {
    let total = progress(directory, "run")["sequences"].as_u64().unwrap() + more;
    succeeds(directory, &format!("train --resume run --sequences {total} --threads 1"));
    succeeds(directory, &train(total, "uninterrupted"));
    let (run, uninterrupted) = (directory.join("run"), directory.join("uninterrupted"));
    for log in ["metrics.jsonl", "evaluations.jsonl"] {
        assert_eq!(timeless(&run.join(log)), timeless(&uninterrupted.join(log)), "{log}");
    }
    for checkpoint in ["checkpoints/latest.safetensors", "checkpoints/best.safetensors"] {
        assert_same_tensors(&run.join(checkpoint), &uninterrupted.join(checkpoint));
    }
}

#[test]
fn a_run_stopped_by_sigterm_and_by_sigint_equals_one_that_never_stopped_bit_for_bit() {
    let directory = tempfile::tempdir().unwrap();
    for (line, signal, code) in
        [(begin().as_str(), libc::SIGTERM, 143), ("train --resume run --threads 1", libc::SIGINT, 130)]
    {
        let ran = stopped_by(signal, directory.path(), line);
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        assert!(ran.stderr.contains("stopped and saved after"), "{}", ran.stderr);
        assert!(ran.stderr.contains("ntm train --resume run"), "{}", ran.stderr);
        // It was saved where it stopped, not at the last multiple of `checkpoint_every`: no report is lost.
        let reports = lines(&directory.path().join("run/metrics.jsonl")).len() as u64;
        let step = progress(directory.path(), "run")["step"].as_u64().unwrap();
        assert_eq!(step / 7, reports, "{step} updates, {reports} reports of 7");
    }
    assert_goes_on_as_if_never_stopped(directory.path(), 50);
}

#[test]
fn a_stopped_run_that_is_given_the_total_it_has_seen_ends_as_a_run_of_that_total() {
    let directory = tempfile::tempdir().unwrap();
    stopped_by(libc::SIGTERM, directory.path(), &begin());
    assert_goes_on_as_if_never_stopped(directory.path(), 0);
    let ran = succeeds(directory.path(), "train --resume run");
    assert!(ran.stderr.contains("run is finished: "), "{}", ran.stderr);
}

#[test]
fn the_last_report_of_a_run_that_ends_where_it_was_stopped_has_the_reach_of_its_updates() {
    let directory = tempfile::tempdir().unwrap();
    let grow = r#"--set training.curriculum={"kind":"grow","over":0.5}"#;
    stopped_by(libc::SIGTERM, directory.path(), &format!("{} {grow}", begin()));
    let seen = &progress(directory.path(), "run")["sequences"];
    succeeds(directory.path(), &format!("train --resume run --sequences {seen}"));
    let reports = lines(&directory.path().join("run/metrics.jsonl"));
    assert_eq!(&reports.last().unwrap()["sequences"], seen);
    assert!(reports.iter().all(|report| report["reach"].as_f64().unwrap() < 0.01), "{reports:?}");
}

#[test]
fn an_end_that_is_killed_comes_again_and_its_report_has_the_rate_of_its_updates() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let schedule = r#"training.schedule={"kind":"linear","hold":0}"#;
    let one_long = "--set training.eval_every=1000000000 --set evaluation.sequences=300000"; // evaluation, at the end
    stopped_by(libc::SIGTERM, here, &format!("{} --set {schedule} {one_long}", begin()));
    let total = progress(here, "run")["sequences"].as_u64().unwrap();
    let mut child = start(here, &format!("train --resume run --sequences {total}"));
    wait_for(|| progress(here, "run")["closing"] == 1_000_000_000_u64); // it evaluates now
    child.kill().unwrap();
    child.wait().unwrap();
    let before = lines(&here.join("run/metrics.jsonl")).len();
    assert!(lines(&here.join("run/evaluations.jsonl")).is_empty());
    succeeds(here, "train --resume run");
    let reports = lines(&here.join("run/metrics.jsonl"));
    assert!(reports.len() <= before + 1);
    assert!(reports.last().unwrap()["learning_rate"].as_f64().unwrap() > 2.9e-4);
    assert_eq!(steps(&here.join("run/evaluations.jsonl")), [total]);
    assert_eq!(progress(here, "run")["closing"], Value::Null);
}

/// Waits for something, at most a minute.
fn wait_for(happens: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happens() {
        assert!(Instant::now() < deadline, "not within a minute");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_run_that_was_killed_repeats_what_came_after_its_last_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let ran = stopped_by(libc::SIGKILL, directory.path(), &begin());
    assert_eq!(ran.code, None, "{}", ran.stderr);
    let step = progress(directory.path(), "run")["step"].as_u64().unwrap();
    assert_eq!(step % 10, 0, "saved at a multiple of `checkpoint_every`");
    // What a kill in the middle of a write leaves behind.
    let metrics = directory.path().join("run/metrics.jsonl");
    let torn = [&fs::read(&metrics).unwrap()[..], b"{\"step\": 99, \"sequ\xff\0"].concat();
    fs::write(&metrics, torn).unwrap();
    assert_goes_on_as_if_never_stopped(directory.path(), 50);
}

#[test]
fn what_a_run_goes_on_with_outlives_a_kill_before_its_next_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    succeeds(here, &format!("{} --set training.checkpoint_every=0", train(20, "run")));
    let ran = stopped_by(
        libc::SIGKILL,
        here,
        "train --resume run --sequences 1000000000 --on-nonfinite rollback --threads 1",
    );
    assert_eq!(ran.code, None, "{}", ran.stderr);
    assert_eq!(progress(here, "run")["sequences"], 20, "nothing was saved since");
    let saved = succeeds(here, "info --checkpoint run/checkpoints/latest.safetensors --json").json();
    let training = &saved["recipe"]["training"];
    assert_eq!(
        (&training["sequences"], &training["on_nonfinite"]["kind"]),
        (&1_000_000_000.into(), &"rollback".into())
    );
}

#[test]
fn a_directory_with_the_logs_of_a_run_without_checkpoints_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    succeeds(here, &train(20, "run"));
    fs::remove_dir_all(here.join("run/checkpoints")).unwrap();
    let before = fs::read(here.join("run/metrics.jsonl")).unwrap();
    let message = refused(here, &train(20, "run"), 1);
    assert!(
        message.contains("`run` holds the logs of a run whose checkpoints are gone\nhint: move it away"),
        "{message}"
    );
    assert_eq!(fs::read(here.join("run/metrics.jsonl")).unwrap(), before);
}

#[test]
fn a_directory_is_refused_while_a_process_trains_in_it_and_taken_over_once_it_is_dead() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let mut child = command(here, &train(100_000, "run")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while progress_is_missing(here) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let message = refused(here, "train --resume run --threads 1", 1);
    assert!(message.contains(&format!("`run` is in use: process {} trains there", child.id())), "{message}");
    child.kill().unwrap(); // SIGKILL: nothing is cleaned up
    child.wait().unwrap();
    let total = progress(here, "run")["sequences"].as_u64().unwrap() + 10;
    succeeds(here, &format!("train --resume run --sequences {total} --threads 1"));
    assert_eq!(progress(here, "run")["sequences"], total);
}

fn progress_is_missing(here: &Path) -> bool {
    fs::read_to_string(here.join("run/metrics.jsonl")).map_or(true, |text| text.lines().count() < 3)
}
