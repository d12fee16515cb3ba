//! `training.restart`: runs that have not got far enough begin anew.

use super::nonfinite::diverging;
use crate::common::{TINY, assert_same_tensors, command, lines, refused, steps, succeeds, timeless, wait_for_reports};
use serde_json::{Value, json};
use std::path::Path;

/// Nothing costs so little; looked at after 13 of 25 updates.
const NEVER_REACHED: &str = "--sequences 25 --set training.restart.kind=unless --set training.restart.metric=loss_bits \
    --set training.restart.after=0.5 --set training.restart.times=2";
const LATEST: &str = "checkpoints/latest.safetensors";

fn info(here: &Path, run: &str) -> Value {
    succeeds(here, &format!("info --checkpoint {run}/{LATEST} --json")).json()
}

#[test]
fn a_run_begins_anew_as_often_as_its_recipe_says_and_then_goes_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let ran =
        succeeds(here, &format!("train {TINY} {NEVER_REACHED} --set training.curriculum.kind=grow --run-dir run"));
    for restart in ["restart 1 of at most 2", "restart 2 of at most 2"] {
        let said = format!("  loss_bits above 0: beginning anew, {restart}\n");
        assert_eq!(ran.stderr.matches(&said).count(), 1, "{}", ran.stderr);
    }
    let progress = info(here, "run")["progress"].clone();
    let told = ["step", "sequences", "restarts", "given_up"].map(|name| progress[name].as_u64().unwrap());
    assert_eq!(told, [51, 51, 2, 26]);
    assert_eq!(steps(&here.join("run/metrics.jsonl")), [5, 10, 13, 15, 20, 25, 26, 30, 35, 40, 45, 50, 51]);
    assert_eq!(steps(&here.join("run/evaluations.jsonl")), [10, 13, 20, 26, 30, 40, 50, 51]);
}

#[test]
fn rate_and_curriculum_count_from_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    // rate and curriculum count from the start, and Adam's first step is as large as ever
    let from_start = "--set training.schedule.kind=linear --set training.optimizer.kind=adam --set training.optimizer.learning_rate=1e-3";
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
    // so few bits are reached by nobody, and with 1000 of them the first evaluation solves it
    for (solved, steps, restarts) in [("0", 50, 1), ("1000", 25, 0)] {
        let set = "--set training.restart.at_most=1000 --set training.restart.until_solved=true \
            --set training.restart.times=1 --set solved.metric=loss_bits";
        let run = format!("run-{solved}");
        let line = format!("train {TINY} {NEVER_REACHED} {set} --set solved.at_most={solved} --run-dir {run}");
        succeeds(here, &line);
        let progress = info(here, &run)["progress"].clone();
        assert_eq!((&progress["step"], &progress["restarts"]), (&json!(steps), &json!(restarts)), "{progress}");
    }
}

#[test]
fn a_start_that_has_got_far_enough_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let reached = format!("{NEVER_REACHED} --set training.restart.at_most=1000");
    succeeds(here, &format!("train {TINY} {reached} --run-dir run"));
    succeeds(here, &format!("train {TINY} --sequences 25 --run-dir plain"));
    assert_eq!(info(here, "run")["progress"]["restarts"], 0);
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
    let child = command(here, &line("killed")).stderr(std::process::Stdio::null()).spawn();
    let mut child = child.unwrap();
    wait_for_reports(&here.join("killed"), 50); // in the second start
    child.kill().unwrap();
    child.wait().unwrap();
    succeeds(here, "train --resume killed --threads 1");
    assert_same_tensors(&here.join("killed").join(LATEST), &here.join("uninterrupted").join(LATEST));
    for log in ["metrics.jsonl", "evaluations.jsonl"] {
        assert_eq!(timeless(&here.join("killed").join(log)), timeless(&here.join("uninterrupted").join(log)));
    }
}

#[test]
fn a_study_tells_of_restarts_and_a_new_total_is_that_of_the_last_start() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let ran = succeeds(here, &format!("train {TINY} {NEVER_REACHED} --seeds 1..2 --run-dir study"));
    assert!(ran.stderr.contains("seed 1: not solved in 51 sequences, "), "{}", ran.stderr);
    assert!(ran.stderr.contains(", 2 restarts\n"), "{}", ran.stderr);
    let summary: Value =
        serde_json::from_str(&std::fs::read_to_string(here.join("study/summary.json")).unwrap()).unwrap();
    assert_eq!(summary["outcomes"][1]["restarts"], 2);
    let message = refused(here, "train --resume study/seed-1 --sequences 20", 1);
    assert!(message.contains("`--sequences 20` is less than the 25 that this run has seen"), "{message}");
    succeeds(here, "train --resume study/seed-1 --sequences 30");
    assert_eq!(info(here, "study/seed-1")["progress"]["sequences"], 56);
}

#[test]
fn numbers_that_are_not_finite_are_a_reason_to_begin_anew() {
    let directory = diverging();
    let here = directory.path();
    let restart = "--set training.restart.kind=unless --set training.restart.metric=squared_error \
        --set training.restart.at_most=1000000 --set training.restart.times=2";
    let ran = crate::common::ntm(here, &format!("train diverging.json --threads 1 --run-dir run {restart}"));
    assert_eq!(ran.code, Some(1), "every start diverges: {}", ran.stderr);
    assert_eq!(ran.stderr.matches("is not a finite number").count(), 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("beginning anew, restart 2 of at most 2"), "{}", ran.stderr);
    let progress = info(here, "run")["progress"].clone();
    assert_eq!(progress["restarts"], 2);
    assert!(progress["step"].as_u64() >= progress["given_up"].as_u64(), "{progress}");
}

#[test]
fn what_cannot_be_asked_for_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    for (set, expected) in [
        ("training.restart.kind=always", "`training.restart.kind` is \"always\", allowed: never, unless"),
        ("training.restart.after=0", "`training.restart.after` is 0, allowed: "),
        ("training.restart.after=1.5", "`training.restart.after` is 1.5, allowed: 0 to 1"),
        ("training.restart.times=0", "`training.restart.times` is 0, allowed: 1 to 1000"),
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
