//! Signals and pipes, as a terminal and a shell make them.

use crate::common::{Ran, TINY, command, lines, send, start, stops, wait_for_reports};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn each_signal_that_asks_to_stop_saves_and_ends_with_its_number() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129)] {
        let directory = tempfile::tempdir().unwrap();
        let child = start(directory.path(), &format!("train {TINY} --sequences 1000000 --run-dir run"));
        wait_for_reports(&directory.path().join("run"), 2);
        send(&child, signal);
        let ran = Ran::new(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        assert!(ran.stderr.contains("stopped and saved after"), "{}", ran.stderr);
    }
}

#[test]
fn a_second_signal_ends_the_run_at_once_but_where_it_comes_with_the_first() {
    let signals = [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129)];
    for (signal, code) in signals {
        let directory = tempfile::tempdir().unwrap();
        // updates of many seconds, so that both come within one
        let slow = "train copy --engine composed --threads 1 --set training.batch_size=200 --set task.min_length=200 \
            --set task.max_length=200 --run-dir run";
        let mut child = start(directory.path(), slow);
        while !directory.path().join("run/checkpoints/latest.safetensors").exists() {
            std::thread::sleep(Duration::from_millis(5));
            assert!(child.try_wait().unwrap().is_none());
        }
        send(&child, signal);
        std::thread::sleep(Duration::from_millis(700));
        assert!(child.try_wait().unwrap().is_none(), "the first one waits for the end of the update");
        send(&child, signal);
        let ran = Ran::new(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        assert!(!ran.stderr.contains("stopped and saved"), "{}", ran.stderr);
    }
    // as from `timeout`, or from a shell and the system where a terminal closes
    for (signal, code) in signals {
        let directory = tempfile::tempdir().unwrap();
        let child = start(directory.path(), &format!("train {TINY} --sequences 1000000 --run-dir run"));
        wait_for_reports(&directory.path().join("run"), 2);
        (0..3).for_each(|_| send(&child, signal));
        let ran = Ran::new(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        assert!(ran.stderr.contains("stopped and saved after"), "{}", ran.stderr);
    }
}

#[test]
fn a_signal_in_the_last_update_finds_the_run_finished() {
    let directory = tempfile::tempdir().unwrap();
    let slow = "train copy --engine composed --threads 1 --set training.batch_size=100 --set task.min_length=100 \
        --set task.max_length=100 --set evaluation.lengths=[2] --sequences 100 --run-dir run";
    let child = start(directory.path(), slow);
    while !directory.path().join("run/checkpoints/latest.safetensors").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    send(&child, libc::SIGINT);
    let reports = fs::read_to_string(directory.path().join("run/metrics.jsonl")).unwrap_or_default();
    assert!(reports.is_empty(), "it came too late");
    let ran = Ran::new(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("trained 100 sequences"), "{}", ran.stderr);
}

#[test]
fn a_run_that_is_suspended_waits_and_goes_on_when_it_is_continued() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    // into a file: a pipe that nobody reads would fill up, and hold the run where a signal should
    let said = fs::File::create(directory.path().join("said")).unwrap();
    let line = format!("train {TINY} --sequences 1000000 --run-dir run");
    let mut child = command(directory.path(), &line).stdout(Stdio::null()).stderr(said).spawn().unwrap();
    wait_for_reports(&run, 2);
    send(&child, libc::SIGTSTP);
    if !stops(&child) {
        eprintln!("SIGTSTP stops no process of an orphaned group, as this one is: SIGSTOP instead");
        send(&child, libc::SIGSTOP);
        assert!(stops(&child));
    }
    let reports = || fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().count();
    let before = reports();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(reports(), before);
    send(&child, libc::SIGCONT);
    wait_for_reports(&run, before + 3);
    send(&child, libc::SIGTERM);
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(143), "{}", fs::read_to_string(directory.path().join("said")).unwrap());
    let steps: Vec<u64> = lines(&run.join("metrics.jsonl")).iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert!(steps.iter().zip(1..).all(|(step, i)| *step == 5 * i), "{steps:?}");
}

/// Runs a shell line with the program as `$NTM`; its stdout, and its stderr that went elsewhere.
fn shell(here: &Path, line: &str) -> Ran {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("NTM", env!("CARGO_BIN_EXE_ntm")).current_dir(here);
    Ran::new(shell.output().unwrap())
}

#[test]
fn a_reader_that_leaves_ends_what_only_prints_and_not_what_trains() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let ran = shell(here, "$NTM info | head -1");
    assert_eq!((ran.code, ran.stdout.lines().count(), ran.stderr.as_str()), (Some(0), 1, ""));

    let ran = shell(here, &format!("$NTM train {TINY} --sequences 20 --run-dir run 2>&1 | head -1"));
    assert_eq!((ran.stdout.lines().count(), ran.stderr.as_str()), (1, ""));
    assert_eq!(lines(&here.join("run/metrics.jsonl")).len(), 4, "the run came to its end");

    // A study prints its table at the end of hours: a reader that has left is no reason to call it failed.
    let line = format!("train {TINY} --seeds 1..2 --sequences 20 --run-dir study");
    let mut child = start(here, &line);
    drop(child.stdout.take());
    let ran = Ran::new(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(here.join("study/summary.json").exists());
}
