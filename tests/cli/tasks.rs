//! Every task of the paper: training and evaluation on both engines, its axes, its figures, its sample.

use crate::common::{refused, succeeds};
use ntm::tasks::Task;
use serde_json::{Value, json};
use std::path::Path;

/// A task, what makes it and its machine tiny, two points of it, and the keys of a result.
const TASKS: [(&str, &str, &str, &str); 5] = [
    ("copy", "--set task.max_length=3", "--lengths 2,4", "length sequences loss_bits bit_errors exact"),
    (
        "repeat-copy",
        "--set task.max_length=2 --set task.max_repeats=2",
        "--lengths 2 --repeats 1,3",
        "length repeats sequences loss_bits bit_errors exact marker_errors",
    ),
    (
        "associative-recall",
        "--set task.item_length=1 --set task.max_items=3",
        "--items 2,4",
        "items sequences loss_bits bit_errors exact",
    ),
    (
        "ngrams",
        "--set task.order=3 --set task.length=8",
        "--lengths 8,12",
        "length sequences loss_bits bit_errors exact optimum_bits",
    ),
    (
        "priority-sort",
        "--set task.vectors=4 --set task.sorted=3",
        "--vectors 4,8",
        "vectors sequences loss_bits bit_errors exact position_errors",
    ),
];

const SMALL: &str = "--threads 1 --set model.memory.rows=8 --set model.memory.width=4 --set model.controller.hidden=8 \
    --set model.controller.layers=1 --set model.read_heads=1 --set model.write_heads=1 --set evaluation.sequences=2 \
    --set training.restart.kind=never";

fn keys(value: &Value) -> String {
    value.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn close(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b)),
        _ => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-4,
    }
}

#[test]
fn the_table_of_tasks_has_every_task_but_files() {
    let names: Vec<&str> = TASKS.iter().map(|task| task.0).collect();
    let kinds = Task::kinds();
    let known: Vec<&str> = kinds.iter().map(Task::name).filter(|name| *name != "sequences").collect();
    assert_eq!(names, known);
}

#[test]
fn every_task_trains_and_is_evaluated_on_both_engines_with_the_same_figures() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    for (task, tiny, points, expected) in TASKS {
        for engine in ["fused", "composed"] {
            let line =
                format!("train {task} {tiny} {SMALL} --sequences 20 --engine {engine} --run-dir {task}-{engine}");
            succeeds(here, &line);
        }
        let eval = |engine: &str, flags: &str| {
            let checkpoint = format!("--checkpoint {task}-fused/checkpoints/latest.safetensors");
            succeeds(here, &format!("eval {checkpoint} --engine {engine} --threads 1 --sequences 40 {points} {flags}"))
        };
        let [fused, composed] = ["fused", "composed"].map(|engine| eval(engine, "--json").json());
        let results = fused["results"].as_array().unwrap();
        assert_eq!((fused["task"].as_str(), results.len()), (Some(task), 2));
        for (result, other) in results.iter().zip(composed["results"].as_array().unwrap()) {
            assert_eq!(keys(result), expected, "{task}");
            assert_figures(task, result);
            for (name, value) in result.as_object().unwrap() {
                assert!(close(value, &other[name]), "{task}, {name}: fused {value}, composed {}", other[name]);
            }
        }
        let table = eval("fused", "").stdout;
        let axes: Vec<&str> = expected.split(" sequences").next().unwrap().split(' ').collect();
        let heading: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(heading[..axes.len()], axes, "{table}");
        for (row, result) in table.lines().skip(1).zip(results) {
            assert_eq!(row.split_whitespace().next(), Some(result[axes[0]].to_string().as_str()), "{table}");
        }
    }
}

/// What only one task has, for untrained machines of the sizes above.
fn assert_figures(task: &str, result: &Value) {
    let number = |name: &str| result[name].as_f64().unwrap();
    match task {
        // a share of the vectors is written, 3 of 4; the errors of the positions are all errors
        "priority-sort" => {
            let positions = result["position_errors"].as_array().unwrap();
            assert_eq!(positions.len() as f64, (number("vectors") * 0.75).round());
            let sum: f64 = positions.iter().map(|errors| errors.as_f64().unwrap()).sum();
            assert!((sum - number("bit_errors")).abs() < 1e-9, "{result}");
        }
        // about a bit for each prediction, the optimum less
        "ngrams" => {
            let (cost, optimum, predicted) = (number("loss_bits"), number("optimum_bits"), number("length") - 2.0);
            assert!((0.8 * predicted..1.3 * predicted).contains(&cost), "{result}");
            assert!((0.3 * predicted..cost).contains(&optimum), "{result}");
        }
        // about half of all bits wrong; at most a wrong marker a step
        "repeat-copy" => {
            let steps = number("length") * number("repeats");
            assert!((0.3 * 8.0 * steps..0.7 * 8.0 * steps).contains(&number("bit_errors")), "{result}");
            assert!((0.0..=steps + 1.0).contains(&number("marker_errors")), "{result}");
        }
        _ => {}
    }
}

#[test]
fn an_axis_that_the_task_lacks_and_a_value_that_makes_no_sequence_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (task, tiny, _, _) in TASKS.into_iter().filter(|task| task.0 != "priority-sort") {
        succeeds(directory.path(), &format!("train {task} {tiny} {SMALL} --sequences 1 --run-dir {task}"));
    }
    for (task, flags, expected) in [
        ("copy", "--items 3", "`--items` is no axis of copy\nhint: it has --lengths"),
        ("repeat-copy", "--vectors 3", "hint: it has --lengths, --repeats"),
        ("associative-recall", "--items 1", "`--items` is 1, allowed: 2 to"),
        ("ngrams", "--lengths 2", "`--lengths` is 2, allowed: 3 to"),
        (
            "repeat-copy",
            "--lengths 1000000 --repeats 1000000",
            "length 1000000, repeats 1000000 makes 1000002000002 steps",
        ),
    ] {
        let line = format!("eval --checkpoint {task}/checkpoints/latest.safetensors {flags}");
        let message = refused(directory.path(), &line, 1);
        assert!(message.contains(expected), "{line}\n{message}");
    }
}

#[test]
fn a_machine_is_evaluated_with_other_rows_than_it_was_trained_with() {
    let directory = tempfile::tempdir().unwrap();
    let train = |flags: &str, run: &str| {
        succeeds(
            directory.path(),
            &format!("train copy {SMALL} --set task.max_length=3 --sequences 5 {flags} --run-dir {run}"),
        );
    };
    let line = |run: &str, flags: &str| {
        format!("eval --checkpoint {run}/checkpoints/latest.safetensors --lengths 3 {flags} --json")
    };
    let results = |run: &str, flags: &str| succeeds(directory.path(), &line(run, flags)).json()["results"].clone();
    train("", "run");
    assert_eq!(results("run", "--rows 8"), results("run", ""), "8 rows are what it has");
    assert_ne!(results("run", "--rows 64"), results("run", ""));
    assert_eq!(results("run", "--rows 64")[0]["sequences"], 100);
    train("--set model.init.memory=learned", "learned");
    let message = refused(directory.path(), &line("learned", "--rows 64"), 1);
    assert!(
        message.contains("`--rows 64`: `model.init.memory` is not constant") && message.contains("hint: "),
        "{message}"
    );
    succeeds(
        directory.path(),
        "train copy-lstm --set model.hidden=4 --sequences 1 --run-dir lstm --threads 1 --set evaluation.lengths=[2]",
    );
    assert!(refused(directory.path(), &line("lstm", "--rows 64"), 1).contains("no memory rows"));
}

#[test]
fn what_is_evaluated_follows_the_task() {
    let here = Path::new("/");
    let evaluation = |task: &str| succeeds(here, &format!("info {task} --json")).json()["recipe"]["evaluation"].clone();
    assert_eq!(evaluation("copy"), json!({ "lengths": [20, 120], "sequences": 20 }));
    assert_eq!(evaluation("repeat-copy"), json!({ "lengths": [10, 20], "repeats": [20], "sequences": 40 }));
    let directory = tempfile::tempdir().unwrap();
    let tiny = "--set task.item_length=1 --set task.max_items=2";
    // a task set over another recipe leaves that recipe's axes behind
    let never = "--set training.eval_every=0 --set evaluation.items=[]";
    let line =
        format!("train copy --set task.kind=associative-recall {tiny} {SMALL} {never} --sequences 1 --run-dir run");
    succeeds(directory.path(), &line);
    let message = refused(directory.path(), "eval --checkpoint run/checkpoints/latest.safetensors", 1);
    assert!(message.contains("the recipe names no items to measure at\nhint: name some with --items"), "{message}");
    let line = "train ngrams --set evaluation.items=[3]";
    let message = refused(directory.path(), line, 1);
    assert!(message.contains("unknown field `evaluation.items`"), "{message}");
    assert!(message.contains("hint: the fields here are lengths, sequences"), "{message}");
}

#[test]
fn a_sample_shows_a_sequence_in_80_columns_and_takes_the_axes_of_its_task() {
    let here = Path::new("/");
    for (task, _, _, _) in TASKS {
        let text = succeeds(here, &format!("info {task} --sample")).stdout;
        assert!(text.lines().all(|line| line.len() <= 80) && text.contains("mask"), "{text}");
    }
    let sample = |flags: &str| succeeds(here, &format!("info copy --sample {flags}")).stdout;
    assert_eq!(sample(""), sample("--seed 1"));
    assert_ne!(sample(""), sample("--seed 2"));
    let text = succeeds(here, "info repeat-copy --sample --lengths 2 --repeats 2,4").stdout;
    assert!(text.contains("length 2, repeats 2, 10 steps") && text.contains("length 2, repeats 4, 16 steps"), "{text}");
    assert!(refused(here, "info copy --sample --items 2", 1).contains("`--items` is no axis of copy"));
    assert!(refused(here, "info --sample", 2).contains("RECIPE"));
}
