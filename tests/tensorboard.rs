//! TensorBoard's own reader finds in the event files what metrics.jsonl and evaluations.jsonl say.
#![allow(clippy::unwrap_used)] // helpers of tests are no tests to clippy

mod common;

use common::{TINY, lines, python, send, start, succeeds, tiny_run, wait_for_reports};
use ntm::checkpoint::Checkpoint;
use ntm::composed::Composed;
use ntm::engine::Engine;
use ntm::replay::{Memory, MemoryShape};
use ntm::tasks::{Axis, Point, Source};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tch::Tensor;

/// Steps and values by tag. Event files hold f32.
type Scalars = BTreeMap<String, Vec<(u64, f32)>>;

/// Step, width, height, grey pixels.
type Image = (u64, usize, usize, Vec<u8>);

/// All that TensorBoard reads.
#[derive(serde::Deserialize)]
struct Read {
    scalars: Scalars,
    /// Step, number and sum of the values.
    histograms: BTreeMap<String, Vec<(u64, f64, f64)>>,
    images: BTreeMap<String, Vec<Image>>,
    /// Step and text.
    texts: BTreeMap<String, Vec<(u64, String)>>,
    parameters: BTreeMap<String, Value>,
    status: Option<String>,
}

fn read(run: &Path) -> Read {
    let text = python([Path::new("tests/read_events.py"), run]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in\n{text}"))
}

/// The scalars that the logs have as well.
fn logged_scalars(read: Read) -> Scalars {
    let others = |tag: &str| tag.starts_with("heads/") || tag == "train/grad_norm_clipped";
    read.scalars.into_iter().filter(|(tag, _)| !others(tag)).collect()
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
        let mean = |tag: &str| {
            let scores = evaluation["results"].as_array().unwrap();
            scores.iter().map(|score| score[tag].as_f64().unwrap()).sum::<f64>() / scores.len() as f64
        };
        let means = json!({ "loss_bits": mean("loss_bits"), "bit_errors": mean("bit_errors") });
        add("eval/all", &means, &evaluation["step"], &["loss_bits", "bit_errors"]);
    }
    scalars
}

#[test]
fn tensorboard_lists_the_scalars_of_a_run_with_the_values_of_its_logs() {
    let directory = tiny_run();
    let run = directory.path().join("run");
    let found = logged_scalars(read(&run));
    assert_eq!(
        found.len(),
        5 + 3 * 2,
        "five of training, two of each evaluated length and of both: {:?}",
        found.keys()
    );
    assert_eq!(found, logged(&run));
}

#[test]
fn tensorboard_shows_a_resumed_run_as_one_curve() {
    let directory = tiny_run();
    succeeds(directory.path(), "train --resume run --sequences 40 --threads 1");
    let run = directory.path().join("run");
    let read = read(&run);
    let sessions = &read.texts["run/command"];
    assert_eq!(sessions.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 20]);
    assert!(sessions[1].1.contains("--resume run"), "{sessions:?}");
    assert_eq!(logged_scalars(read), logged(&run));
}

#[test]
fn a_run_that_was_killed_after_its_checkpoint_and_resumed_shows_no_step_twice() {
    let directory = tiny_run();
    let run = directory.path().join("run");
    // as after kill -9: the logs are ahead of the checkpoint, and the event file ends in the middle of a record
    let kept = std::fs::read(run.join("checkpoints/latest.safetensors")).unwrap();
    succeeds(directory.path(), "train --resume run --sequences 40 --threads 1");
    std::fs::write(run.join("checkpoints/latest.safetensors"), kept).unwrap();
    let mut files: Vec<_> = std::fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.to_string_lossy().contains("tfevents"));
    files.sort();
    let last = std::fs::OpenOptions::new().write(true).open(files.last().unwrap()).unwrap();
    last.set_len(last.metadata().unwrap().len() - 5).unwrap();
    succeeds(directory.path(), "train --resume run --sequences 60 --threads 1");
    let found = logged_scalars(read(&run));
    assert_eq!(found["train/loss_bits"].len(), 60 / 5);
    assert_eq!(found, logged(&run));
}

#[test]
fn sessions_on_a_clock_that_was_set_back_and_many_within_a_second_stay_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    succeeds(directory.path(), &format!("train {TINY} --sequences 10 --run-dir run"));
    let event_files = || {
        let files = std::fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|file| file.to_string_lossy().contains("tfevents")).collect();
        files.sort();
        files
    };
    let [first] = &event_files()[..] else { panic!("one session") };
    let name = first.file_name().unwrap().to_str().unwrap();
    let second = name.split('.').nth(3).unwrap();
    let later = (second.parse::<u64>().unwrap() + 3600).to_string();
    let of_an_earlier_version = name.replace(second, &later).replace(".000000.", ".0.");
    std::fs::rename(first, run.join(of_an_earlier_version)).unwrap();
    for sequences in (15..=75).step_by(5) {
        succeeds(directory.path(), &format!("train --resume run --sequences {sequences} --threads 1"));
    }
    assert_eq!(event_files().len(), 14);
    assert_eq!(logged_scalars(read(&run)), logged(&run));
}

#[test]
fn every_evaluation_logs_heads_tensors_and_pictures_of_a_sequence_as_it_was() {
    let directory = tiny_run();
    let run = directory.path().join("run");
    let read = read(&run);
    let steps = |steps: Vec<u64>| assert_eq!(steps, [10, 20]);
    for name in ["strength", "gate", "sharpening", "entropy_bits"] {
        for head in ["read_0", "write_0"] {
            steps(read.scalars[&format!("heads/{head}/{name}")].iter().map(|(step, _)| *step).collect());
        }
    }
    for (step, entropy) in &read.scalars["heads/read_0/entropy_bits"] {
        assert!((0.0..=3.0).contains(entropy), "of 8 rows, step {step}: {entropy}");
    }
    let info = succeeds(directory.path(), "info copy --json").json();
    for tensor in info["tensors"].as_array().unwrap() {
        for group in ["weights", "gradients"] {
            let name = format!("{group}/{}", tensor["name"].as_str().unwrap());
            steps(read.histograms[&name].iter().map(|(step, ..)| *step).collect());
        }
    }
    // the output's bias has 3 values, whose sum the checkpoint tells as well
    let tensors = common::tensors(&run.join("checkpoints/latest.safetensors"));
    let bias = tensors["model.output.bias"].1.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes) as f64);
    let (_, number, sum) = read.histograms["weights/output.bias"][1];
    assert!(number == 3.0 && (sum - bias.sum::<f64>()).abs() < 1e-6, "{number} values, sum {sum}");

    // copy of length 2, T = 5: 4 input channels; blocks of 16 x 16 pixels. What was seen is what is to be said, 3 steps
    // later.
    let (_, width, height, inputs) = &read.images["look/1_inputs"][0];
    let (_, _, _, targets) = &read.images["look/2_targets"][0];
    assert_eq!((*width, *height), (5 * 16, 4 * 16));
    for y in 0..3 * 16 {
        for x in 0..2 * 16 {
            assert_eq!(inputs[y * 80 + x], targets[y * 80 + x + 3 * 16], "column {x}, row {y}");
        }
    }
    assert_eq!(inputs[(3 * 16 + 8) * 80 + 2 * 16 + 8], 255, "the end marker at step 2");
    let (_, _, _, outputs) = &read.images["look/3_outputs"][0];
    assert!(
        outputs.chunks(80).all(|row| row[..3 * 16].iter().all(|grey| *grey == 0)),
        "no answer is due before step 3"
    );
    assert!(outputs.iter().any(|grey| *grey > 0), "{outputs:?}");
    for tag in ["3_outputs", "4_weightings_read_0", "4_weightings_write_0", "5_reads_read_0", "6_adds_write_0"] {
        assert_eq!(read.images[&format!("look/{tag}")].len(), 2, "{tag}");
    }
}

#[test]
fn the_memory_is_pictured_as_the_last_step_leaves_it() {
    let directory = tiny_run();
    let run = directory.path().join("run");
    let read = read(&run);
    let (step, width, height, grey) = &read.images["look/7_memory"][1];
    assert_eq!((*step, *width, *height), (20, 4 * 16, 8 * 16), "8 rows of 4 values");
    // the weights of that step, and the first sequence of the first point of the evaluation
    let Checkpoint { recipe, theta, .. } = Checkpoint::load(&run.join("checkpoints/latest.safetensors")).unwrap();
    let batch =
        Source::open(&recipe.task).unwrap().evaluation_batch(0, &Point::new([(Axis::Length, 2)]), 0, 1).unwrap();
    let mut engine = Composed::new(recipe.network());
    let trace = engine.trace(&Tensor::from_slice(&theta), &batch).unwrap();
    let mut memory = Memory::start(MemoryShape::of(&recipe.model).unwrap(), &recipe.layout(), &theta);
    (0..batch.steps).for_each(|step| memory.write(&trace, step));
    let least = memory.values.iter().copied().fold(f32::INFINITY, f32::min);
    let most = memory.values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for (index, value) in memory.values.iter().enumerate() {
        let (x, y) = (index % 4 * 16 + 8, index / 4 * 16 + 8);
        let (found, expected) = (grey[y * width + x] as f32, (value - least) / (most - least) * 255.0);
        assert!((found - expected).abs() < 1.5, "row {}, value {}: {found}, {expected}", index / 4, index % 4);
    }
}

#[test]
fn a_run_tells_tensorboard_its_recipe_its_command_and_its_parameters() {
    let directory = tiny_run();
    let read = read(&directory.path().join("run"));
    let (texts, parameters) = (read.texts, read.parameters);
    assert!(texts["run/recipe"][0].1.contains("\"batch_size\": 1"), "{texts:?}");
    let (_, session) = &texts["run/command"][0];
    for words in ["--sequences 20 --run-dir run ``", env!("CARGO_PKG_VERSION"), "fused engine on cpu", "threads: 1"] {
        assert!(session.contains(words), "{session}");
    }
    assert_eq!(parameters["training.batch_size"], 1.0);
    assert!(!parameters.keys().any(|name| name.starts_with("evaluation")), "{parameters:?}");
    assert_eq!(parameters["model.controller.kind"], "lstm");
}

#[test]
fn hparams_of_a_resumed_run_show_how_it_ended_and_nothing_that_a_resume_may_change() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    let mut child = start(directory.path(), &format!("train {TINY} --sequences 1000000 --run-dir run"));
    wait_for_reports(&run, 2);
    send(&child, libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(read(&run).status, None, "it may go on");
    let seen = common::progress(directory.path(), "run")["sequences"].as_u64().unwrap();
    let line = format!("train --resume run --sequences {} --on-nonfinite rollback --threads 1", seen + 5);
    succeeds(directory.path(), &line);
    let read = read(&run);
    assert_eq!(read.status.as_deref(), Some("STATUS_SUCCESS"));
    let shown = |of: &str| read.parameters.keys().any(|name| name.starts_with(of));
    assert!(
        shown("training.") && !shown("training.sequences") && !shown("training.on_nonfinite"),
        "{:?}",
        read.parameters
    );
}

#[test]
fn tensorboard_names_the_points_of_a_grid_and_the_figures_of_a_task() {
    let directory = tempfile::tempdir().unwrap();
    let sizes = "--set task.max_length=2 --set task.max_repeats=2 --set evaluation.lengths=[2] --set evaluation.repeats=[1,3] \
        --set training.restart.kind=never";
    let line = format!("train repeat-copy {TINY} {sizes} --sequences 10 --run-dir run");
    succeeds(directory.path(), &line);
    let run = directory.path().join("run");
    let (found, evaluations) = (read(&run).scalars, lines(&run.join("evaluations.jsonl")));
    let expected = evaluations[0]["results"][1]["marker_errors"].as_f64().unwrap() as f32;
    assert_eq!(found["eval/length_2_repeats_3/marker_errors"], [(10, expected)]);
    assert!(found.contains_key("train/marker_errors"), "{:?}", found.keys());
}
