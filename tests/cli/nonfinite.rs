//! Numbers that are not finite, of a recipe that diverges.

use crate::common::{Ran, assert_same_tensors, json_of, lines, ntm, progress, refused, steps, succeeds};
use std::fs;
use std::path::Path;

/// Own data with one sequence of large targets, and a recipe of plain gradient descent (a `decay` of 0 leaves no
/// variance to scale by). A third of its rate is harmless.
pub fn diverging() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let line = |i: i32| {
        let bits: Vec<i32> = (0..2 + i % 3).map(|t| (i * 37 + 11) >> t & 1).collect();
        let scale = if i == 20 { 10 } else { 1 };
        let inputs: Vec<String> = bits.iter().map(|bit| format!("[{bit},1]")).collect();
        let targets: Vec<String> = bits.iter().map(|bit| format!("[{}]", (3 * bit - 1) * scale)).collect();
        format!("{{\"input\": [{}], \"target\": [{}]}}\n", inputs.join(","), targets.join(","))
    };
    fs::write(directory.path().join("data.jsonl"), (0..50).map(line).collect::<String>()).unwrap();
    let recipe = r#"{
        "task": {"kind": "sequences", "train": "data.jsonl", "eval": "data.jsonl", "loss": "squared"},
        "model": {"memory": {"rows": 8, "width": 4}, "controller": {"hidden": 8}},
        "training": {"sequences": 60, "report_every": 1, "eval_every": 4, "checkpoint_every": 15, "clip": {"kind": "none"},
            "optimizer": {"kind": "rmsprop", "learning_rate": 0.006, "decay": 0}},
        "evaluation": {"sequences": 5}}"#;
    fs::write(directory.path().join("diverging.json"), recipe).unwrap();
    directory
}

const ROLLBACK: &str =
    "--on-nonfinite rollback --set training.on_nonfinite.kind=rollback --set training.on_nonfinite.at_most=9";

fn train(flags: &str, run: &str) -> String {
    format!("train diverging.json --threads 1 --run-dir {run} {flags}")
}

#[test]
fn a_diverging_run_names_tensor_and_update_and_keeps_its_last_good_checkpoint() {
    let directory = diverging();
    let here = directory.path();
    let message = refused(here, &train("", "run"), 1);
    let at: u64 = message.split("at update ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(message.starts_with("error: training stopped: the ") && message.contains("` is not a finite"), "{message}");
    assert!(message.contains("hint: the last good checkpoint is run/checkpoints/latest.safetensors"), "{message}");
    assert!(message.contains("--resume run --on-nonfinite rollback`"), "{message}");
    assert_eq!(progress(here, "run")["step"], (at - 1) / 15 * 15);
    assert_eq!(*steps(&here.join("run/metrics.jsonl")).last().unwrap(), at - 1, "stopped within the update");
    assert!(!here.join("run/checkpoints/rollback.safetensors").exists());
    // What the hint says.
    succeeds(here, "train --resume run --on-nonfinite rollback --threads 1");
    assert_eq!(steps(&here.join("run/metrics.jsonl")), (1..=60).collect::<Vec<_>>());
}

/// A run that goes back and comes to its end, with the lines of its rollbacks.
fn with_rollbacks(here: &Path, line: &str) -> (Ran, usize) {
    let ran = succeeds(here, line);
    let rollbacks = ran.stderr.matches("with half the learning rate, rollback ").count();
    (ran, rollbacks)
}

#[test]
fn a_rollback_goes_on_from_the_last_checkpoint_with_half_the_rate_and_says_so() {
    let directory = diverging();
    let here = directory.path();
    let (ran, rollbacks) = with_rollbacks(here, &train(ROLLBACK, "run"));
    assert!(rollbacks >= 1, "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("rollback {rollbacks} of 9")), "{}", ran.stderr);
    assert_eq!(progress(here, "run")["rollbacks"], rollbacks);
    let metrics = lines(&here.join("run/metrics.jsonl"));
    assert_eq!(metrics.last().unwrap()["learning_rate"], 0.006 * 0.5f64.powi(rollbacks as i32));
    assert_eq!(steps(&here.join("run/metrics.jsonl")), (1..=60).collect::<Vec<_>>(), "each report once");
    assert_eq!(steps(&here.join("run/evaluations.jsonl")), (1..=15).map(|i| 4 * i).collect::<Vec<_>>());
    let recipe = json_of(&here.join("run/recipe.json"));
    assert_eq!(recipe["training"]["on_nonfinite"], serde_json::json!({"kind": "rollback", "at_most": 9}));
    succeeds(here, "train run/recipe.json --run-dir again --threads 1");
    let latest = "checkpoints/latest.safetensors";
    assert_same_tensors(&here.join("run").join(latest), &here.join("again").join(latest));
}

#[test]
fn a_run_that_was_stopped_anywhere_goes_back_to_where_one_that_never_stopped_does() {
    let directory = diverging();
    let here = directory.path();
    let latest = "checkpoints/latest.safetensors";
    let (_, rollbacks) = with_rollbacks(here, &train(ROLLBACK, "uninterrupted"));
    for stop in [7, 15, 22, 31, 40, 50] {
        let run = format!("run-{stop}");
        let first = with_rollbacks(here, &train(&format!("{ROLLBACK} --sequences {stop}"), &run)).1;
        let second = with_rollbacks(here, &format!("train --resume {run} --sequences 60 --threads 1")).1;
        assert_eq!(first + second, rollbacks, "stopped after {stop}");
        assert_same_tensors(&here.join(&run).join(latest), &here.join("uninterrupted").join(latest));
    }
}

#[test]
fn rollbacks_end_where_the_recipe_says_and_the_run_can_still_be_read() {
    let directory = diverging();
    let here = directory.path();
    let rate = "--set training.optimizer.learning_rate=0.05"; // half of which diverges as well
    let rollback = ROLLBACK.replace("at_most=9", "at_most=1");
    let line = train(&format!("{rate} {rollback}"), "run");
    let ran = ntm(here, &line);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("rollback 1 of 1").count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("error: training stopped: "), "{}", ran.stderr);
    assert_eq!(progress(here, "run")["rollbacks"], 1);
    let message = refused(here, &train(&ROLLBACK.replace("at_most=9", "at_most=0"), "new"), 1);
    assert!(message.contains("`training.on_nonfinite.at_most` is 0, allowed: 1 to 30"), "{message}");
}
