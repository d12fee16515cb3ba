//! `training.restart`: runs that have not got far enough begin anew.

use super::nonfinite::diverging;
use crate::common::{
    TINY, assert_same_tensors, command, json_of, lines, ntm, progress, refused, send, steps, succeeds, timeless,
    wait_for_reports,
};
use serde_json::{Value, json};
use std::path::Path;

/// Nothing costs so little; looked at after 13 of 25 updates.
const NEVER_REACHED: &str = "--sequences 25 --set training.restart.kind=unless --set training.restart.metric=loss_bits \
    --set training.restart.after=0.5 --set training.restart.times=2";
const LATEST: &str = "checkpoints/latest.safetensors";
/// Of the recipe `diverging`.
const EVERY_START_DIVERGES: &str = "--set training.restart.kind=unless --set training.restart.metric=squared_error \
    --set training.restart.at_most=1000000 --set training.optimizer.learning_rate=0.05";

#[test]
fn a_run_begins_anew_as_often_as_its_recipe_says_and_then_goes_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let ran = succeeds(here, &format!("train {TINY} {NEVER_REACHED} --run-dir run"));
    for restart in ["restart 1 of at most 2", "restart 2 of at most 2"] {
        let said = format!(", more than 0: beginning anew, {restart}\n");
        assert_eq!(ran.stderr.matches(&said).count(), 1, "{}", ran.stderr);
    }
    assert!(ran.stderr.contains("\n  loss (bits) ") && ran.stderr.contains(" at length 4, more"), "{}", ran.stderr);
    let progress = progress(here, "run");
    let told = ["step", "sequences", "restarts", "given_up"].map(|name| progress[name].as_u64().unwrap());
    assert_eq!(told, [51, 51, 2, 26]);
    assert_eq!(steps(&here.join("run/metrics.jsonl")), [5, 10, 13, 18, 23, 26, 31, 36, 39, 41, 46, 51]);
    assert_eq!(steps(&here.join("run/evaluations.jsonl")), [10, 13, 23, 26, 36, 39, 46, 51]);
}

#[test]
fn the_schedule_counts_from_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let from_start = "--set training.schedule.kind=linear --set training.optimizer.learning_rate=1e-3";
    succeeds(here, &format!("train {TINY} {NEVER_REACHED} {from_start} --run-dir run"));
    let rates = |from: u64| -> Vec<f64> {
        let metrics = lines(&here.join("run/metrics.jsonl"));
        let of = |line: &Value| (line["step"].as_u64().unwrap(), line["learning_rate"].as_f64().unwrap());
        metrics.iter().map(of).filter(|(step, _)| *step > from).map(|(_, rate)| rate).collect()
    };
    assert_eq!(rates(0)[0], 1e-3);
    assert_eq!(rates(13)[0], 1e-3, "the second start has the full rate");
    let last = *rates(26).last().unwrap();
    assert!(last < 0.1e-3, "and the last one comes to the end of the schedule: {last}");
}

#[test]
fn a_start_may_have_to_be_solved_by_its_end_and_one_that_has_been_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    // 0 bits are reached by nobody, and with 1000 of them the first evaluation, after 10 updates, solves it
    for (wanted, solved, steps, restarts) in [("1000", "0", 50, 1), ("0", "1000", 25, 0)] {
        let set =
            "--set training.restart.until_solved=true --set training.restart.times=1 --set solved.metric=loss_bits";
        let run = format!("run-{solved}");
        let bounds = format!("--set training.restart.at_most={wanted} --set solved.at_most={solved}");
        succeeds(here, &format!("train {TINY} {NEVER_REACHED} {set} {bounds} --run-dir {run}"));
        let progress = progress(here, &run);
        assert_eq!((&progress["step"], &progress["restarts"]), (&json!(steps), &json!(restarts)), "{progress}");
    }
    let stop = "--set solved.metric=loss_bits --set solved.at_most=1000 --set solved.stop=true";
    let ran = succeeds(here, &format!("train {TINY} {NEVER_REACHED} {stop} --run-dir stopped"));
    let next = "next: ntm eval --checkpoint stopped\n";
    assert!(ran.stderr.contains(next), "{}", ran.stderr);
}

#[test]
fn every_start_is_measured_where_it_is_decided_on_the_last_one_too() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    succeeds(here, &format!("train {TINY} {NEVER_REACHED} --set training.eval_every=0 --run-dir run"));
    assert_eq!(steps(&here.join("run/evaluations.jsonl")), [13, 26, 39]);
    let told: Vec<Value> = lines(&here.join("run/metrics.jsonl")).iter().map(|line| line["restarts"].clone()).collect();
    let restarts = |count: u64, times| std::iter::repeat_n(if count == 0 { Value::Null } else { json!(count) }, times);
    // reports after 5, 10 and 13 updates of each, and after 15, 20 and 25 of the last
    assert_eq!(told, restarts(0, 3).chain(restarts(1, 3)).chain(restarts(2, 6)).collect::<Vec<_>>());
}

#[test]
fn a_start_that_has_got_far_enough_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let reached = format!("{NEVER_REACHED} --set training.restart.at_most=1000");
    succeeds(here, &format!("train {TINY} {reached} --run-dir run"));
    succeeds(here, &format!("train {TINY} --sequences 25 --run-dir plain"));
    assert_eq!(progress(here, "run")["restarts"], 0);
    assert_same_tensors(&here.join("run").join(LATEST), &here.join("plain").join(LATEST));
}

#[test]
fn a_run_that_was_stopped_anywhere_begins_anew_where_one_that_never_stopped_does() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let line = |run: &str| {
        let long = NEVER_REACHED.replace("--sequences 25", "--sequences 600").replace("after=0.5", "after=0.3");
        format!("train {TINY} {long} --set evaluation.sequences=50 --set training.eval_every=7 --run-dir {run}")
    };
    succeeds(here, &line("uninterrupted"));
    for (signal, reports) in [(libc::SIGKILL, 10), (libc::SIGKILL, 37), (libc::SIGTERM, 36), (libc::SIGTERM, 60)] {
        let run = format!("stopped-{reports}");
        let mut child = command(here, &line(&run)).stderr(std::process::Stdio::null()).spawn().unwrap();
        wait_for_reports(&here.join(&run), reports); // a start that is given up has 36 of them
        send(&child, signal);
        assert_ne!(child.wait().unwrap().code(), Some(0), "it was still running");
        succeeds(here, &format!("train --resume {run} --threads 1"));
        assert_same_run(here, &run, "uninterrupted");
    }
}

/// Starts that end in all ways: given up, come to their end without being confirmed, and solved, the fifth of them.
const UNTIL_SOLVED: &str = r#"{"task": {"width": 3, "max_length": 4},
    "model": {"memory": {"rows": 8, "width": 6}, "controller": {"kind": "feedforward", "hidden": 20}},
    "training": {"sequences": 1500, "report_every": 130, "eval_every": 300, "checkpoint_every": 450, "average": 0.99,
        "optimizer": {"kind": "rmsprop", "learning_rate": 1e-3}, "restart": {"kind": "unless", "at_most": 0.2, "after": 0.4,
        "metric": "bit_errors", "until_solved": true, "times": 12}},
    "evaluation": {"lengths": [4], "sequences": 40},
    "solved": {"metric": "bit_errors", "at_most": 0.0, "stop": true, "confirm": 3000}}"#;

/// The progress of a run without what depends on the clock.
fn timeless_progress(here: &Path, run: &str) -> Value {
    let mut progress = progress(here, run);
    progress["seconds"] = Value::Null;
    progress["solved"]["seconds"] = Value::Null;
    progress
}

/// Asserts that two runs have the same machines, logs and progress, but for times.
fn assert_same_run(here: &Path, left: &str, right: &str) {
    for name in ["latest", "best"] {
        let file = |run: &str| here.join(run).join(format!("checkpoints/{name}.safetensors"));
        assert_same_tensors(&file(left), &file(right));
    }
    for log in ["metrics.jsonl", "evaluations.jsonl"] {
        assert_eq!(timeless(&here.join(left).join(log)), timeless(&here.join(right).join(log)), "{left}, {right}");
    }
    assert_eq!(timeless_progress(here, left), timeless_progress(here, right));
}

#[test]
fn starts_side_by_side_are_the_run_that_has_them_one_after_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    std::fs::write(here.join("recipe.json"), UNTIL_SOLVED).unwrap();
    let line = |jobs: usize, run: &str| format!("train recipe.json --threads 1 --jobs {jobs} --run-dir {run}");
    let alone = succeeds(here, &line(1, "one"));
    assert!(alone.stderr.contains("\n  not confirmed by more sequences: beginning anew"), "{}", alone.stderr);
    assert!(alone.stderr.contains("more than 0.2: beginning anew") && !alone.stderr.contains("at a time"));
    assert_eq!(progress(here, "one")["restarts"], 4);
    for jobs in [2, 3, 8] {
        let ran = succeeds(here, &line(jobs, &format!("run-{jobs}")));
        let words = format!(
            "fused engine on cpu (starts can go side by side on the cores), threads: 1, starts at a time: {jobs}\n"
        );
        assert!(ran.stderr.starts_with(&words), "{}", ran.stderr);
        assert_same_run(here, "one", &format!("run-{jobs}"));
        let told = |text: &str| -> Vec<String> {
            text.lines().filter(|line| line.contains("anew")).map(String::from).collect()
        };
        assert_eq!(told(&ran.stderr), told(&alone.stderr));
    }
    // jobs that no seed needs
    succeeds(here, "train recipe.json --threads 1 --seeds 1..2 --jobs 5 --run-dir study");
    assert_same_run(here, "one", "study/seed-1");
    // and one that was stopped goes on with another number of them
    let mut child = command(here, &line(3, "stopped")).stderr(std::process::Stdio::null()).spawn().unwrap();
    wait_for_reports(&here.join("stopped"), 2);
    send(&child, libc::SIGKILL);
    child.wait().unwrap();
    succeeds(here, "train --resume stopped --jobs 2");
    assert_same_run(here, "one", "stopped");
}

#[test]
fn starts_side_by_side_that_diverge_say_what_one_after_the_other_says() {
    let directory = diverging();
    let here = directory.path();
    let told = [1, 3].map(|jobs| {
        let flags = format!("{EVERY_START_DIVERGES} --set training.restart.times=5");
        let ran = ntm(here, &format!("train diverging.json --threads 1 --jobs {jobs} --run-dir run-{jobs} {flags}"));
        assert_eq!(ran.code, Some(1), "every start diverges: {}", ran.stderr);
        let of = |line: &&str| line.contains("is not a finite number");
        ran.stderr.lines().filter(of).map(String::from).collect::<Vec<_>>()
    });
    assert_eq!(told[0].len(), 6, "{told:?}");
    assert_eq!(told[0], told[1]);
    assert_eq!(progress(here, "run-3")["best"], progress(here, "run-1")["best"]);
}

#[test]
fn a_study_tells_of_restarts_and_a_new_total_is_that_of_the_last_start() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let ran = succeeds(here, &format!("train {TINY} {NEVER_REACHED} --seeds 1..2 --run-dir study"));
    assert!(ran.stderr.contains("seed 1: not solved in 51 sequences, "), "{}", ran.stderr);
    assert!(ran.stderr.contains(", 2 restarts\n"), "{}", ran.stderr);
    for seed in 1..=2 {
        let told = ran.stderr.lines().filter(|line| line.starts_with(&format!("seed {seed}: ")));
        assert_eq!(told.filter(|line| line.contains(": beginning anew, restart ")).count(), 2, "{}", ran.stderr);
    }
    assert_eq!(json_of(&here.join("study/summary.json"))["outcomes"][1]["restarts"], 2);
    let message = refused(here, "train --resume study/seed-1 --sequences 20", 1);
    assert!(
        message.contains("`--sequences 20` is less than the 25 that this run has seen since it last began anew"),
        "{message}"
    );
    succeeds(here, "train --resume study/seed-1 --sequences 30");
    assert_eq!(progress(here, "study/seed-1")["sequences"], 56);
}

#[test]
fn numbers_that_are_not_finite_are_a_reason_to_begin_anew() {
    let directory = diverging();
    let here = directory.path();
    let restart = format!("{EVERY_START_DIVERGES} --set training.restart.times=2");
    let ran = ntm(here, &format!("train diverging.json --threads 1 --run-dir run {restart}"));
    assert_eq!(ran.code, Some(1), "every start diverges: {}", ran.stderr);
    assert_eq!(ran.stderr.matches("is not a finite number").count(), 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("beginning anew, restart 2 of at most 2"), "{}", ran.stderr);
    assert_eq!(progress(here, "run")["restarts"], 2);
    let kept = format!("{restart} --set solved.at_most=1e13");
    let ran = ntm(here, &format!("train diverging.json --threads 1 --run-dir solved {kept}"));
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(!ran.stderr.contains("beginning anew"), "a start that has been solved is kept: {}", ran.stderr);
}

#[test]
fn a_rollback_never_goes_back_to_a_start_that_was_given_up() {
    let directory = diverging();
    let here = directory.path();
    // given up after 12 updates for what nothing reaches; the second start diverges later and has no other checkpoint
    let flags = "--set training.restart.kind=unless --set training.restart.metric=squared_error \
        --set training.restart.after=0.2 --set training.restart.times=1 --on-nonfinite rollback \
        --set training.on_nonfinite.kind=rollback --set training.on_nonfinite.at_most=9 --set training.checkpoint_every=1000";
    let higher = "--set training.optimizer.learning_rate=0.015";
    let ran = succeeds(here, &format!("train diverging.json --threads 1 --run-dir run {flags} {higher}"));
    assert_eq!(ran.stderr.matches("beginning anew, restart 1 of at most 1").count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("  back to update 12 with half the learning rate, rollback 1 of 9"), "{}", ran.stderr);
    let progress = progress(here, "run");
    assert_eq!((&progress["restarts"], &progress["given_up"], &progress["step"]), (&json!(1), &json!(12), &json!(72)));

    // where every start diverges, each has its own rollbacks
    let rate =
        "--set training.optimizer.learning_rate=0.05 --set training.restart.after=1 --set training.restart.times=2";
    let flags = flags.replace("on_nonfinite.at_most=9", "on_nonfinite.at_most=1");
    let ran = ntm(here, &format!("train diverging.json --threads 1 --run-dir often {flags} {rate}"));
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("rollback 1 of 1").count(), 3, "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("beginning anew").count(), 2, "{}", ran.stderr);
}

#[test]
fn what_cannot_be_asked_for_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    for (set, expected) in [
        ("training.restart.kind=always", "`training.restart.kind` is \"always\", allowed: never, unless"),
        ("training.restart.after=0", "`training.restart.after` is 0, allowed: more than 0, up to 1"),
        ("training.restart.after=1.5", "`training.restart.after` is 1.5, allowed: more than 0, up to 1"),
        ("training.restart.times=0", "`training.restart.times` is 0, allowed: 1 to 1000"),
        ("training.restart.times=4294967297", "`training.restart.times` is 4294967297, allowed: 1 to 1000"),
        ("training.restart.metric=squared_error", "`training.restart.metric` is squared_error, copy has bit_errors"),
        ("training.restart.metric=bits", "`training.restart.metric` is \"bits\", allowed: bit_errors, loss_bits"),
        ("evaluation.lengths=[]", "`evaluation.lengths` is empty, but `training.restart` looks at an evaluation"),
    ] {
        let line = format!("train --set training.eval_every=0 --set training.restart.kind=unless --set {set}");
        let message = refused(here, &line, 1);
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(json!(here.read_dir().unwrap().count()), 0);
}
