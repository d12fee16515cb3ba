//! `ntm predict`: outputs for inputs of one's own, from a file or through a pipe.

use crate::common::{Ran, command, refused, succeeds};
use crate::own_data::{train, with_data};
use ntm::checkpoint::Checkpoint;
use ntm::fused::Fused;
use ntm::tasks::Source;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PREDICT: &str = "predict --checkpoint run/checkpoints/latest.safetensors --threads 1";

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints").join(name)
}

/// The numbers of a (T, width) list of lists.
fn numbers(table: &Value) -> Vec<f64> {
    table.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap()).map(|x| x.as_f64().unwrap()).collect()
}

fn values(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What it prints for what comes through stdin.
fn piped(here: &Path, flags: &str, text: &str) -> Ran {
    let mut child = command(here, &format!("{PREDICT} {flags}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    Ran::new(child.wait_with_output().unwrap())
}

#[test]
fn the_outputs_for_a_data_file_have_the_figures_of_eval() {
    for (task, scale, figure) in [("", "", "loss_bits"), (r#", "loss": "squared""#, ".5", "squared_error")] {
        let directory = with_data(task, scale);
        let here = directory.path();
        succeeds(here, &train(20, "run"));
        let data = values(&fs::read_to_string(here.join("eval.jsonl")).unwrap());
        let answers = values(&succeeds(here, &format!("{PREDICT} eval.jsonl")).stdout);
        assert_eq!(answers.len(), data.len());
        let losses = data.iter().zip(&answers).map(|(line, answer)| {
            let pairs: Vec<(f64, f64)> = std::iter::zip(numbers(&line["target"]), numbers(&answer["output"])).collect();
            let cost = pairs.iter().map(|(target, output)| match figure {
                "loss_bits" => -(if *target == 1.0 { *output } else { 1.0 - output }).log2(),
                _ => (target - output).powi(2) / pairs.len() as f64,
            });
            cost.sum::<f64>()
        });
        let found = losses.sum::<f64>() / data.len() as f64;
        let eval = "eval --checkpoint run/checkpoints/latest.safetensors --threads 1 --json";
        let expected = succeeds(here, eval).json()["results"][0][figure].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-5 * expected, "{figure}: {found}, eval says {expected}");
    }
}

#[test]
fn predict_gives_the_engines_outputs_to_the_last_bit_for_every_task_and_other_rows() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["copy", "repeat-copy", "associative-recall", "ngrams", "priority-sort"] {
        let path = shipped(&format!("{name}.safetensors"));
        let Checkpoint { recipe, theta, .. } = Checkpoint::load(&path).unwrap();
        let batch = Source::open(&recipe.task).unwrap().evaluation_batch(1, &recipe.task.sample(), 0, 1).unwrap();
        let (x, y) = recipe.task.widths();
        let input: Vec<&[f32]> = batch.inputs.chunks(x).collect();
        fs::write(directory.path().join("in.jsonl"), json!({ "input": input }).to_string()).unwrap();
        let line = format!("predict --checkpoint {} --threads 1 in.jsonl", path.display());
        let answers = values(&succeeds(directory.path(), &line).stdout);
        let mut engine = Fused::<f32>::new(recipe.network(), 1).unwrap();
        let expected: Vec<f32> =
            engine.logits(&theta, &batch).iter().map(|&logit| recipe.task.loss().output(logit)).collect();
        let found: Vec<f32> = numbers(&answers[0]["output"]).iter().map(|&output| output as f32).collect();
        assert_eq!((answers.len(), found), (1, expected), "{name}");
        if name == "copy" {
            // five vectors and the end marker in, the same five out, also where there are more rows than in training
            let answers = values(&succeeds(directory.path(), &format!("{line} --rows 500")).stdout);
            let outputs = numbers(&answers[0]["output"]);
            assert!(outputs[6 * y..].iter().zip(&batch.targets[6 * y..]).all(|(p, bit)| (p - *bit as f64).abs() < 0.1));
        }
    }
}

#[test]
fn a_file_and_stdin_give_the_same_and_what_stands_beside_the_inputs_is_passed_over() {
    let directory = with_data("", "");
    let here = directory.path();
    succeeds(here, &train(20, "run"));
    let text = fs::read_to_string(here.join("eval.jsonl")).unwrap();
    let from_file = succeeds(here, &format!("{PREDICT} eval.jsonl")).stdout;
    let alone = |line: &Value| format!("{}\r\n\n", json!({ "input": line["input"] })); // Windows' line ends, empty lines
    let inputs: String = values(&text).iter().map(alone).collect();
    let odd = text.replace("\"target\":", r#""mask": "no list", "target": [[7], {"a": null}], "target":"#);
    for (flags, text) in [("", &text), ("-", &text), ("", &inputs), ("", &odd), ("", &text.trim_end().to_string())] {
        let ran = piped(here, flags, text);
        assert_eq!((ran.code, &ran.stdout), (Some(0), &from_file), "{}", ran.stderr);
    }
    for nothing in ["", "\n \n"] {
        let ran = piped(here, "", nothing);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{}", ran.stderr);
    }
}

#[test]
fn a_line_is_answered_before_the_next_one_comes() {
    let directory = with_data("", "");
    succeeds(directory.path(), &train(20, "run"));
    let mut child = command(directory.path(), PREDICT);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut to, mut from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    for steps in [1, 3] {
        writeln!(to, "{}", json!({ "input": vec![[0, 1]; steps] })).unwrap();
        let mut answer = String::new();
        from.read_line(&mut answer).unwrap();
        assert_eq!(values(&answer)[0]["output"].as_array().unwrap().len(), steps);
    }
    drop(to);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reader_that_leaves_ends_it_without_a_word() {
    let directory = with_data("", "");
    succeeds(directory.path(), &train(20, "run"));
    let line = format!("yes '{{\"input\": [[0, 1]]}}' | $NTM {PREDICT} | head -2");
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).env("NTM", env!("CARGO_BIN_EXE_ntm")).current_dir(directory.path());
    let ran = Ran::new(shell.output().unwrap());
    assert_eq!((ran.code, ran.stdout.lines().count()), (Some(0), 2));
    assert!(ran.stderr.lines().count() == 1 && ran.stderr.contains("engine on cpu"), "{}", ran.stderr);
}

#[test]
fn a_wrong_line_is_refused_with_its_place_after_the_answers_before_it() {
    let directory = with_data("", "");
    let here = directory.path();
    succeeds(here, &train(20, "run"));
    for (line, expected) in [
        (r#"{"input": [[0, 1]"#, "column 17: EOF while parsing a list"),
        (r#"{"input": [[0, 1], [1]]}"#, "column 23: step 1 of `input` has 1 value, expected 2"),
        (r#"{"input": [[0, 1, 0]]}"#, "column 21: step 0 of `input` has 3 values, expected 2"),
        (r#"{"input": [[]]}"#, "column 14: step 0 of `input` has 0 values, expected 2"),
        (r#"{"input": []}"#, "column 12: `input` is empty, expected 1 step or more"),
        (r#"{"input": [[0, true]]}"#, "column 19: invalid type: boolean `true`, expected a number"),
        (r#"{"target": [[1]]}"#, "column 17: there is no `input`"),
        (r#"{"inputs": [[0, 1]]}"#, "column 20: unknown key `inputs`, expected `input`, `target` or `mask`"),
        (r#"{"input": [[0, 1]], "input": [[0, 1]]}"#, "column 38: `input` appears twice"),
        ("[[0, 1]]", "column 1: invalid type: sequence, expected an object with `input`"),
    ] {
        let text = format!("{}\n\n{line}\n", r#"{"input": [[0, 1]]}"#);
        fs::write(here.join("in.jsonl"), &text).unwrap();
        for (ran, name) in [(piped(here, "", &text), "stdin"), (piped(here, "in.jsonl", ""), "`in.jsonl`")] {
            assert_eq!((ran.code, ran.stdout.lines().count()), (Some(1), 1), "{line}\n{}", ran.stderr);
            let said = ran.stderr.split_once('\n').unwrap().1;
            assert_eq!(said, format!("error: {name}, line 3, {expected}\n"), "{line}");
        }
    }
    assert!(
        refused(here, &format!("{PREDICT} nowhere.jsonl"), 1)
            .starts_with("error: cannot read `nowhere.jsonl`: No such")
    );
    assert!(refused(here, &format!("{PREDICT} run"), 1).starts_with("error: cannot read `run`: Is a directory"));
    // a sum of inputs so large may be infinity minus infinity
    let text = json!({ "input": vec![[3e38; 9]] }).to_string();
    let flags = format!("--engine composed --checkpoint {}", shipped("copy.safetensors").display());
    fs::write(here.join("in.jsonl"), text).unwrap();
    let message = refused(here, &format!("predict {flags} in.jsonl"), 1);
    assert!(message.starts_with("error: `in.jsonl`, line 1: the output of step 0 is NaN\nhint: "), "{message}");
}
