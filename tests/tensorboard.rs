//! TensorBoard's own reader finds in the event files what metrics.jsonl and evaluations.jsonl say.
#![allow(clippy::unwrap_used)] // helpers of tests are no tests to clippy

mod common;

use common::{TINY, lines, python, succeeds, tiny_run};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Steps and values by tag. Event files hold f32.
type Scalars = BTreeMap<String, Vec<(u64, f32)>>;

fn events(run: &Path) -> Scalars {
    let text = python([Path::new("tests/read_events.py"), run]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in\n{text}"))
}

/// What the logs of a run say, under the tags it should have in TensorBoard.
fn logged(run: &Path) -> Scalars {
    let mut scalars = Scalars::new();
    let mut add = |group: &str, values: &Value, step: &Value, tags: &[&str]| {
        for tag in tags {
            let value = (step.as_u64().unwrap(), values[tag].as_f64().unwrap() as f32);
            scalars.entry(format!("{group}/{tag}")).or_default().push(value);
        }
    };
    for report in lines(&run.join("metrics.jsonl")) {
        let tags = ["loss_bits", "bit_errors", "grad_norm", "learning_rate", "sequences_per_second"];
        add("train", &report, &report["step"], &tags);
    }
    for evaluation in lines(&run.join("evaluations.jsonl")) {
        for score in evaluation["results"].as_array().unwrap() {
            add(&format!("eval/length_{}", score["length"]), score, &evaluation["step"], &["loss_bits", "bit_errors"]);
        }
    }
    scalars
}

#[test]
fn tensorboard_lists_the_scalars_of_a_run_with_the_values_of_its_logs() {
    let directory = tiny_run();
    let run = directory.path().join("run");
    let found = events(&run);
    assert_eq!(found.len(), 5 + 2 * 2, "five of training, two of each evaluated length: {:?}", found.keys());
    assert_eq!(found, logged(&run));
}

#[test]
fn tensorboard_shows_a_resumed_run_as_one_curve() {
    let directory = tiny_run();
    succeeds(directory.path(), "train --resume run --sequences 40 --threads 1");
    let run = directory.path().join("run");
    assert_eq!(events(&run), logged(&run));
}

#[test]
fn tensorboard_names_the_points_of_a_grid_and_the_figures_of_a_task() {
    let directory = tempfile::tempdir().unwrap();
    let sizes =
        "--set task.max_length=2 --set task.max_repeats=2 --set evaluation.lengths=[2] --set evaluation.repeats=[1,3]";
    let line = format!("train repeat-copy {TINY} {sizes} --sequences 10 --run-dir run");
    succeeds(directory.path(), &line);
    let run = directory.path().join("run");
    let (found, evaluations) = (events(&run), lines(&run.join("evaluations.jsonl")));
    let expected = evaluations[0]["results"][1]["marker_errors"].as_f64().unwrap() as f32;
    assert_eq!(found["eval/length_2_repeats_3/marker_errors"], [(10, expected)]);
    assert!(found.contains_key("train/marker_errors"), "{:?}", found.keys());
}
