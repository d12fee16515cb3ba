//! What checkpoints/README.md says is enough: a forward pass in NumPy, written from that page, gives the same logits.
#![allow(clippy::unwrap_used)] // helpers of tests are no tests to clippy

mod common;

use common::{python, succeeds};
use ntm::checkpoint::Checkpoint;
use ntm::composed::Composed;
use ntm::config::{BUILT_IN, Recipe};
use ntm::engine::Engine;
use ntm::progress::Progress;
use ntm::tasks::{Axis, Point, Source};
use std::ffi::OsString;
use std::path::Path;
use tch::{Kind, Tensor};

/// Odd sizes, every kind of network and start, and every activation.
const RECIPES: [(&str, &str); 9] = [
    ("two LSTM layers", r#"{"model": {"controller": {"hidden": 7, "layers": 2}, "memory": {"rows": 6, "width": 5}}}"#),
    (
        "two feed-forward layers, a learned memory",
        r#"{"model": {"controller": {"kind": "feedforward", "hidden": 9, "layers": 2}, "memory": {"rows": 11, "width": 3},
            "init": {"memory": "learned"}}}"#,
    ),
    (
        "two read and three write heads, five shifts",
        r#"{"model": {"controller": {"hidden": 5}, "memory": {"rows": 9, "width": 4}, "read_heads": 2, "write_heads": 3,
            "shift_range": 5}}"#,
    ),
    (
        "one shift, tanh keys, random weightings",
        r#"{"model": {"controller": {"hidden": 6}, "memory": {"rows": 5, "width": 3}, "shift_range": 1,
            "activation": {"key": "tanh"}, "init": {"weighting": "learned_random"}}}"#,
    ),
    (
        "more shifts than rows, tanh adds, a random memory",
        r#"{"model": {"controller": {"hidden": 6}, "memory": {"rows": 3, "width": 7}, "shift_range": 9,
            "activation": {"add": "tanh"}, "init": {"memory": "random", "weighting": "one_hot"}}}"#,
    ),
    (
        "uniform weightings over a learned memory",
        r#"{"model": {"controller": {"hidden": 4}, "memory": {"rows": 10, "width": 2}, "write_heads": 2,
            "init": {"memory": "learned", "weighting": "uniform"}}}"#,
    ),
    ("one row of one value", r#"{"model": {"controller": {"hidden": 3}, "memory": {"rows": 1, "width": 1}}}"#),
    ("an LSTM of three layers without memory", r#"{"model": {"kind": "lstm", "hidden": 11, "layers": 3}}"#),
    ("an LSTM of one layer", r#"{"task": {"width": 13}, "model": {"kind": "lstm", "hidden": 5, "layers": 1}}"#),
];

/// A checkpoint whose every weight is off its start, so that no tensor is zero or alike in all its elements.
fn checkpoint(recipe: &str) -> Checkpoint {
    let recipe = Recipe::parse(recipe, &[]).unwrap();
    let start = recipe.layout().initial_theta(5);
    let theta: Vec<f32> = start.iter().enumerate().map(|(i, value)| value + 0.1 * (12.9898 * i as f32).sin()).collect();
    let optimizer = ["mean_square", "mean", "delta"].map(|name| (name.to_string(), theta.clone())).to_vec();
    Checkpoint { recipe, progress: Progress::default(), theta, optimizer }
}

/// The largest differences of NumPy's logits, which are f64, on a batch of three sequences: from those of the engine,
/// which are f32, and from those of the same engine in f64, where rounding hides nothing.
fn differences(checkpoint: &Checkpoint, directory: &Path) -> [f64; 2] {
    let Checkpoint { recipe, theta, .. } = checkpoint;
    let (x, y) = recipe.task.widths();
    let mut source = Source::open(&recipe.task).unwrap();
    let batch = source.evaluation_batch(3, &Point::new([(Axis::Length, 6)]), 0, 3).unwrap();
    let [saved, inputs, outputs] = ["saved.safetensors", "inputs.npy", "logits.npy"].map(|name| directory.join(name));
    checkpoint.save(&saved).unwrap();
    let shape = [batch.steps as i64, 3, x as i64];
    Tensor::from_slice(&batch.inputs).view(shape).write_npy(&inputs).unwrap();
    python([Path::new("tests/numpy_forward.py"), &saved, &inputs, &outputs]);
    let numpy = Tensor::read_npy(&outputs).unwrap();
    assert_eq!(numpy.size(), [batch.steps as i64, 3, y as i64]);

    let theta = Tensor::from_slice(theta);
    let mut engine = Composed::new(recipe.network());
    let single = Tensor::from_slice(engine.forward(&theta, &batch).unwrap()).view_as(&numpy);
    let double = engine.logits(&theta.to_kind(Kind::Double), &batch);
    [single, double].map(|logits| (logits - &numpy).abs().max().double_value(&[]))
}

#[test]
fn numpy_gives_the_same_logits_for_every_kind_of_network() {
    let directory = tempfile::tempdir().unwrap();
    let builtin = BUILT_IN.iter().find(|(name, _)| *name == "copy").unwrap();
    for (name, recipe) in RECIPES.iter().chain([builtin]) {
        let [single, double] = differences(&checkpoint(recipe), directory.path());
        assert!(single < 1e-5, "{name}: in f32 the largest difference is {single:e}, allowed 1e-5");
        assert!(double < 1e-12, "{name}: in f64 the largest difference is {double:e}, allowed 1e-12");
    }
}

/// Reads the weights in the order of theta from each of our formats: they must be theta, and there must be no others.
const READ_ALL: &str = r#"
import sys, numpy, safetensors.numpy
theta, checkpoint, exported, npz, *names = sys.argv[1:]
theta = numpy.load(theta)
checkpoint = safetensors.numpy.load_file(checkpoint)
for name in ("mean_square", "mean", "delta"):
    assert numpy.array_equal(checkpoint.pop("optimizer." + name), theta)
for file, prefix in [(checkpoint, "model."), (safetensors.numpy.load_file(exported), ""), (numpy.load(npz), "")]:
    assert sorted(file.keys()) == sorted(prefix + name for name in names)
    arrays = [file[prefix + name] for name in names]
    assert all(array.dtype == numpy.float32 for array in arrays)
    assert numpy.array_equal(numpy.concatenate([array.ravel() for array in arrays]), theta)
"#;

#[test]
fn safetensors_and_numpy_read_a_checkpoint_and_its_exports_value_for_value() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let checkpoint = checkpoint(RECIPES[2].1);
    checkpoint.save(&file("saved.safetensors")).unwrap();
    Tensor::from_slice(&checkpoint.theta).write_npy(file("theta.npy")).unwrap();
    for (format, output) in [("safetensors", "exported.safetensors"), ("npz", "exported.npz")] {
        let line = format!("export --checkpoint saved.safetensors --format {format} --output {output}");
        succeeds(directory.path(), &line);
    }
    let files = ["theta.npy", "saved.safetensors", "exported.safetensors", "exported.npz"]
        .map(|name| OsString::from(file(name)));
    let layout = checkpoint.recipe.layout();
    let names = layout.parameters.iter().map(|parameter| OsString::from(&parameter.name));
    python(["-c", READ_ALL].map(OsString::from).into_iter().chain(files).chain(names));
}
