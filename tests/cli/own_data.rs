//! Own sequences: from a file to a run, exact resume, and what is refused.

use crate::common::{assert_same_tensors, json_of, lines, refused, succeeds};
use serde_json::Value;
use std::fs;
use std::path::Path;

const TINY: &str = "--threads 1 --set model.memory.rows=8 --set model.memory.width=4 --set model.controller.hidden=8 \
    --set training.report_every=5 --set training.eval_every=10 --set training.checkpoint_every=10";

/// Writes `count` sequences of 1 to 4 steps: the target is the input of the step before.
fn write(path: &Path, count: usize, scale: &str) {
    let line = |i: usize| {
        let bits: Vec<usize> = (0..=i % 4).map(|t| (i >> t) & 1).collect();
        let row = |bit: &usize| format!("[{bit}{scale}, 1]");
        let input: Vec<String> = bits.iter().map(row).collect();
        let target: Vec<String> =
            [0].iter().chain(&bits).take(bits.len()).map(|bit| format!("[{bit}{scale}]")).collect();
        format!("{{\"input\": [{}], \"target\": [{}]}}\n", input.join(","), target.join(","))
    };
    fs::write(path, (0..count).map(line).collect::<String>()).unwrap();
}

/// A directory with data and a recipe of batches that no epoch is a multiple of.
pub fn with_data(task: &str, scale: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    write(&directory.path().join("train.jsonl"), 23, scale);
    write(&directory.path().join("eval.jsonl"), 9, scale);
    let recipe = format!(
        r#"{{"task": {{"kind": "sequences", "train": "train.jsonl", "eval": "eval.jsonl"{task}}}, "training": {{"batch_size": 4}}}}"#
    );
    fs::write(directory.path().join("my.json"), recipe).unwrap();
    directory
}

pub fn train(sequences: usize, run: &str) -> String {
    format!("train my.json {TINY} --sequences {sequences} --run-dir {run}")
}

#[test]
fn a_stopped_run_on_own_data_goes_on_bit_for_bit_from_any_directory() {
    let directory = with_data("", "");
    let here = directory.path();
    succeeds(here, &train(60, "run"));
    succeeds(here, &train(120, "uninterrupted"));
    let run = here.join("run").display().to_string();
    succeeds(Path::new("/"), &format!("train --resume {run} --sequences 120 --threads 1"));
    let latest = "checkpoints/latest.safetensors";
    assert_same_tensors(&here.join("run").join(latest), &here.join("uninterrupted").join(latest));
}

#[test]
fn the_resolved_recipe_says_what_was_in_the_files_and_a_run_is_rebuilt_from_it() {
    let directory = with_data("", "");
    let here = directory.path();
    succeeds(here, &train(20, "run"));
    let recipe = json_of(&here.join("run/recipe.json"));
    let task = &recipe["task"];
    assert_eq!((&task["input_width"], &task["output_width"], &task["max_steps"]), (&2.into(), &1.into(), &4.into()));
    assert!(Path::new(task["train"].as_str().unwrap()).is_absolute(), "{task}");
    assert!(task["train_content"].as_str().unwrap().contains("checksum"), "{task}");
    succeeds(here, "train run/recipe.json --run-dir again --threads 1");
    let latest = "checkpoints/latest.safetensors";
    assert_same_tensors(&here.join("run").join(latest), &here.join("again").join(latest));
}

#[test]
fn eval_goes_over_the_evaluation_file_and_needs_no_other() {
    let directory = with_data("", "");
    let here = directory.path();
    succeeds(here, &train(20, "run"));
    fs::remove_file(here.join("train.jsonl")).unwrap();
    let eval = "eval --checkpoint run/checkpoints/latest.safetensors --threads 1";
    let sequences =
        |flags: &str| succeeds(here, &format!("{eval} {flags} --json")).json()["results"][0]["sequences"].clone();
    assert_eq!([sequences(""), sequences("--sequences 5"), sequences("--sequences 50")], [9, 5, 9]);
    assert_eq!(lines(&here.join("run/evaluations.jsonl"))[0]["results"][0]["sequences"], 9);
    succeeds(here, "info --checkpoint run/checkpoints/latest.safetensors");
    let message = refused(here, &format!("{eval} --lengths 3"), 1);
    assert!(message.contains("`--lengths`: sequences has no axes"), "{message}");
    fs::remove_file(here.join("eval.jsonl")).unwrap();
    assert!(refused(here, eval, 1).contains("cannot read data file"));
}

#[test]
fn eval_takes_another_file_than_the_recipes() {
    let directory = with_data("", "");
    let here = directory.path();
    succeeds(here, &train(20, "run"));
    write(&here.join("test.jsonl"), 13, "");
    fs::remove_file(here.join("eval.jsonl")).unwrap();
    let of = |data: &str| {
        let ran = succeeds(here, &format!("eval --checkpoint run --threads 1 --json --data {data}"));
        ran.json()["results"][0].clone()
    };
    assert_eq!(of("test.jsonl")["sequences"], 13);
    fs::write(here.join("wide.jsonl"), "{\"input\": [[1, 2, 3]], \"target\": [[0]]}\n").unwrap();
    let message = refused(here, "eval --checkpoint run --threads 1 --data wide.jsonl", 1);
    assert!(message.contains("`wide.jsonl`, line 1, column"), "{message}");
    succeeds(here, "train copy-feedforward --threads 1 --sequences 1 --set evaluation.sequences=1 --run-dir copy");
    let message = refused(here, "eval --checkpoint copy --data test.jsonl", 1);
    assert!(message.contains("`--data test.jsonl`: copy takes no data file\nhint: `ntm predict`"), "{message}");
}

#[test]
fn real_targets_train_by_squared_error_on_both_engines() {
    let directory = with_data(r#", "loss": "squared""#, ".5");
    let here = directory.path();
    let mut scores = vec![];
    for engine in ["fused", "composed"] {
        succeeds(here, &format!("{} --engine {engine}", train(200, engine)));
        let metrics = lines(&here.join(engine).join("metrics.jsonl"));
        let error = |line: &Value| line["squared_error"].as_f64().unwrap();
        assert!(error(metrics.last().unwrap()) < 0.5 * error(&metrics[0]), "{engine}: {metrics:?}");
        assert_eq!(metrics[0].get("loss_bits"), None);
        let line = format!("eval --checkpoint {engine}/checkpoints/latest.safetensors --threads 1");
        scores.push(succeeds(here, &format!("{line} --json")).json()["results"][0]["squared_error"].as_f64().unwrap());
        assert!(succeeds(here, &line).stdout.contains("squared error"));
    }
    assert!((scores[0] - scores[1]).abs() < 1e-3 * scores[0], "{scores:?}");
}

#[test]
fn changed_missing_and_broken_files_are_refused_and_leave_no_run() {
    let directory = with_data("", "");
    let here = directory.path();
    succeeds(here, &train(20, "run"));
    write(&here.join("train.jsonl"), 24, "");
    let message = refused(here, "train --resume run --sequences 40", 1);
    assert!(message.contains("train.jsonl` is not what it was when this run began: "), "{message}");
    assert!(message.contains("hint: put the file back"), "{message}");

    let broken = fs::read_to_string(here.join("train.jsonl")).unwrap() + "{\"input\": [[0, 1]], \"target\": [[2]]}\n";
    fs::write(here.join("train.jsonl"), broken).unwrap();
    let message = refused(here, &train(20, "new"), 1);
    assert!(message.contains("`train.jsonl`, line 25, column 33: `target` has a 2, expected 0 or 1"), "{message}");
    for (setting, expected) in [
        ("task.train=nowhere.jsonl", "cannot read data file `nowhere.jsonl`"),
        ("task.train=/dev/null", "`/dev/null` is not a file that can be read again"),
        ("task.train=\"\"", "`task.train` is empty"),
        (
            "task.input_width=7",
            "with `--set task.input_width=7`: ntm reads it from the files\nhint: `task.train` names",
        ),
        ("task.loss=huber", "`task.loss` is \"huber\", allowed: cross-entropy, squared"),
        ("evaluation.lengths=[3]", "unknown field `evaluation.lengths`"),
    ] {
        let message = refused(here, &format!("{} --set {setting}", train(20, "new")), 1);
        assert!(message.contains(expected), "{message}");
    }
    assert!(!here.join("new").exists());
}
