//! PyTorch and onnxruntime give the engine's logits with what `ntm export` writes.
#![allow(clippy::unwrap_used)] // helpers of tests are no tests to clippy

mod common;
mod machines;

use common::{python, succeeds};
use machines::{MACHINES, batch, recipe, weights};
use ntm::checkpoint::Checkpoint;
use ntm::config::{BUILT_IN, Recipe};
use ntm::export::{npz, onnx, safetensors, torchscript};
use ntm::fused::Fused;
use ntm::model::{Spec, with_rows};
use ntm::progress::Progress;
use serde_json::Value;
use std::fs;
use std::path::Path;
use tch::{CModule, IValue, Tensor};

/// Steps and batch sizes at which logits are compared; at 100 steps one by one, too.
const CASES: [(usize, usize); 7] = [(1, 1), (1, 5), (7, 1), (7, 5), (200, 1), (200, 5), (100, 2)];

/// The largest difference allowed in each check of tests/check_exports.py.
const CHECKS: [(&str, f64); 6] = [
    ("torch", 1e-5),
    ("torch in f64", 1e-6), // what is left is the rounding of logits to f32
    ("torch, frozen", 0.0),
    ("torch, steps", 0.0), // from one call over all of them
    ("onnxruntime", 1e-5),
    ("onnxruntime, steps", 0.0),
];

/// 200 steps of a machine with random weights can amplify the rounding of f32 past 1e-5: then the engine itself is as
/// far from its logits in f64, and an export may be so too, by this factor.
const ROUNDING: f64 = 10.0;

fn checkpoint(recipe: Recipe, noise: f64) -> Checkpoint {
    let theta: Vec<f32> = weights(&recipe.layout(), noise, 3).iter().map(|&weight| weight as f32).collect();
    let vectors = recipe.training.vectors();
    let optimizer = vectors.map(|name| (name.to_string(), vec![0.0; theta.len()])).collect();
    Checkpoint { recipe, progress: Progress { step: 7, ..Progress::default() }, theta, optimizer }
}

/// Random bits (T, B, X) and the engine's logits (T, B, Y), computed in f32 and in f64.
fn case(checkpoint: &Checkpoint, steps: usize, size: usize) -> [Tensor; 3] {
    let recipe = &checkpoint.recipe;
    let (x, y) = recipe.task.widths();
    let mut batch = batch(recipe, &vec![steps; size], 11);
    batch.inputs.iter_mut().for_each(|input| *input = (*input > 0.0) as u8 as f32);
    let theta: Vec<f64> = checkpoint.theta.iter().map(|&weight| weight.into()).collect();
    let mut single = Fused::<f32>::new(recipe.network(), 1).unwrap();
    let mut double = Fused::<f64>::new(recipe.network(), 1).unwrap();
    let tensor = |values: &[f32], width| Tensor::from_slice(values).view([steps as i64, size as i64, width as i64]);
    [
        tensor(&batch.inputs, x),
        tensor(single.logits(&checkpoint.theta, &batch), y),
        tensor(double.logits(&theta, &batch), y),
    ]
}

/// What tests/check_exports.py needs to know beside the exports.
fn write_cases(checkpoint: &Checkpoint, folder: &Path) {
    let cases: Vec<_> = (0..CASES.len())
        .flat_map(|index| {
            let values = case(checkpoint, CASES[index].0, CASES[index].1);
            ["inputs", "logits", "double"].map(|name| format!("{name}_{index}")).into_iter().zip(values)
        })
        .collect();
    Tensor::write_npz(&cases, folder.join("cases.npz")).unwrap();
    let task = &checkpoint.recipe.task;
    fs::write(folder.join("widths.json"), format!("[{},{}]", task.input_width(), task.output_width())).unwrap();
}

/// Every export of a checkpoint, without the program.
fn write_exports(checkpoint: &Checkpoint, folder: &Path) {
    let write = |name: &str, bytes: Vec<u8>| fs::write(folder.join(name), bytes).unwrap();
    write("module.pt", torchscript::encode(checkpoint).unwrap().0);
    write("sequence.onnx", onnx::sequence(checkpoint).unwrap());
    write("step.onnx", onnx::step(checkpoint).unwrap());
    write("init.onnx", onnx::init(checkpoint).unwrap());
    write("weights.safetensors", safetensors::encode(checkpoint).unwrap());
    write("weights.npz", npz::encode(checkpoint).unwrap());
}

/// The same through the program.
fn export(checkpoint: &Checkpoint, folder: &Path, flags: &str) {
    let saved = folder.join("saved.safetensors");
    checkpoint.save(&saved).unwrap();
    for (format, output) in [
        ("torchscript", "module.pt"),
        ("onnx", "sequence.onnx"),
        ("onnx --onnx-graph step", "step.onnx"),
        ("onnx --onnx-graph init", "init.onnx"),
        ("safetensors", "weights.safetensors"),
        ("npz", "weights.npz"),
    ] {
        let line = format!("export --checkpoint saved.safetensors --format {format} --output {output} {flags}");
        succeeds(folder, &line);
    }
}

/// Compares all machines of a directory, this many, in one Python, and prints the table of differences.
fn compare(directory: &Path, machines: usize) -> Value {
    let found = python([Path::new("tests/check_exports.py"), directory]);
    let found: Value = serde_json::from_str(found.trim()).unwrap_or_else(|error| panic!("{error} in\n{found}"));
    assert_eq!(found.as_object().unwrap().len(), machines);
    for (name, checks) in found.as_object().unwrap() {
        println!("{name:40} {checks}");
        let figure = |check: &str| checks[check].as_f64().unwrap();
        for (check, allowed) in CHECKS {
            let rounded = ["torch", "onnxruntime"].contains(&check);
            let allowed = if rounded { allowed.max(ROUNDING * figure("engine in f64")) } else { allowed };
            let difference = figure(check);
            assert!(difference <= allowed, "{name}, {check}: difference {difference:e}, allowed {allowed:e}");
        }
    }
    found
}

#[test]
fn every_recipe_exports_through_the_program_to_what_pytorch_and_onnxruntime_run() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in BUILT_IN {
        let folder = directory.path().join(name);
        fs::create_dir(&folder).unwrap();
        let checkpoint = checkpoint(Recipe::parse(text, &[]).unwrap(), 0.0);
        export(&checkpoint, &folder, "");
        write_cases(&checkpoint, &folder);
    }
    for (name, checks) in compare(directory.path(), BUILT_IN.len()).as_object().unwrap() {
        if name == "notebook" {
            continue; // all its rows are alike, so only rounding reaches the addressing: tests/model.rs
        }
        assert!(checks["least gradient"].as_f64().unwrap() > 0.0, "{name}: a parameter gets no gradient");
    }
}

#[test]
fn a_machine_exports_with_more_memory_rows_as_it_is_evaluated_with_them() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("plain, 14 rows instead of 9");
    fs::create_dir(&folder).unwrap();
    let mut checkpoint = checkpoint(recipe(MACHINES[0].1), 0.2);
    export(&checkpoint, &folder, "--rows 14");
    let (x, y) = checkpoint.recipe.task.widths();
    let (before, theta) = (checkpoint.recipe.model, checkpoint.theta);
    (checkpoint.recipe.model, checkpoint.theta) = with_rows(Spec::new(&before, x, y), &theta, 14).unwrap();
    assert!(checkpoint.theta.len() > theta.len(), "the learned first weighting grows");
    write_cases(&checkpoint, &folder);
    compare(directory.path(), 1);
}

#[test]
fn machines_of_odd_sizes_export_to_what_pytorch_and_onnxruntime_run() {
    let directory = tempfile::tempdir().unwrap();
    for (name, model) in MACHINES {
        let folder = directory.path().join(name);
        fs::create_dir(&folder).unwrap();
        let checkpoint = checkpoint(recipe(model), 0.2);
        write_exports(&checkpoint, &folder);
        write_cases(&checkpoint, &folder);
    }
    compare(directory.path(), MACHINES.len());
}

#[test]
fn a_torchscript_export_streams_in_rust() {
    let checkpoint = checkpoint(recipe(MACHINES[8].1), 0.3);
    let bytes = torchscript::encode(&checkpoint).unwrap().0;
    let module = CModule::load_data(&mut &bytes[..]).unwrap();
    let [inputs, logits, _] = case(&checkpoint, 9, 2);
    let mut state = module.method_is("start", &[IValue::Int(2)]).unwrap();
    for (t, x) in inputs.unbind(0).into_iter().enumerate() {
        let IValue::Tuple(mut results) = module.method_is("step", &[IValue::Tensor(x), state]).unwrap() else {
            panic!()
        };
        state = results.pop().unwrap();
        let found = Tensor::try_from(results.remove(0)).unwrap();
        let difference = (found - logits.get(t as i64)).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "step {t}: {difference:e}");
    }
}
