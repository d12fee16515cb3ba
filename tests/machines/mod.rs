//! Small machines of every kind and odd sizes, with random weights and sequences of mixed lengths.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses a part

pub mod compare;

use ntm::config::Recipe;
use ntm::model::{Config, Layout};
use ntm::tasks::Batch;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// A name and the `model` section of a recipe for each machine.
pub const MACHINES: &[(&str, &str)] = &[
    ("plain", r#"{"controller": {"hidden": 7}, "memory": {"rows": 9, "width": 5}}"#),
    ("notebook sizes", r#"{}"#),
    ("one row", r#"{"controller": {"hidden": 4}, "memory": {"rows": 1, "width": 3}}"#),
    ("width one, no shift", r#"{"controller": {"hidden": 5}, "memory": {"rows": 6, "width": 1}, "shift_range": 1}"#),
    ("more taps than rows", r#"{"controller": {"hidden": 5}, "memory": {"rows": 3, "width": 4}, "shift_range": 9}"#),
    ("three layers", r#"{"controller": {"hidden": 6, "layers": 3}, "memory": {"rows": 8, "width": 4}}"#),
    ("feedforward", r#"{"controller": {"kind": "feedforward", "hidden": 11}, "memory": {"rows": 10, "width": 6}}"#),
    (
        "feedforward, two layers, many heads",
        r#"{"controller": {"kind": "feedforward", "hidden": 5, "layers": 2}, "memory": {"rows": 7, "width": 3},
            "read_heads": 3, "write_heads": 2, "shift_range": 5}"#,
    ),
    (
        "many heads",
        r#"{"controller": {"hidden": 8}, "memory": {"rows": 17, "width": 5}, "read_heads": 2, "write_heads": 3}"#,
    ),
    (
        "learned memory, random weightings, tanh",
        r#"{"controller": {"hidden": 6}, "memory": {"rows": 8, "width": 4}, "activation": {"key": "tanh", "add": "tanh"},
            "init": {"memory": "learned", "weighting": "learned_random"}}"#,
    ),
    (
        "random memory, one-hot weightings",
        r#"{"controller": {"hidden": 6}, "memory": {"rows": 12, "width": 4}, "init": {"memory": "random", "weighting": "one_hot"}}"#,
    ),
    (
        "uniform weightings",
        r#"{"controller": {"hidden": 6}, "memory": {"rows": 5, "width": 4}, "init": {"memory": "learned", "weighting": "uniform"}}"#,
    ),
    (
        "many rows, many taps, two write heads",
        r#"{"controller": {"hidden": 6}, "memory": {"rows": 70, "width": 7}, "write_heads": 2, "shift_range": 7}"#,
    ),
    ("baseline", r#"{"kind": "lstm", "hidden": 9, "layers": 1}"#),
    ("baseline of three layers", r#"{"kind": "lstm", "hidden": 5, "layers": 3}"#),
];

/// A recipe for copy with 3 bits and the given model.
pub fn recipe(model: &str) -> Recipe {
    Recipe::parse(&format!(r#"{{"task": {{"kind": "copy", "width": 3}}, "model": {model}}}"#), &[]).unwrap()
}

/// The start of theta plus normal noise, so that nothing is zero or saturated by accident.
pub fn weights(layout: &Layout, noise: f64, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    layout
        .initial_theta(seed)
        .iter()
        .map(|&value| value as f64 + noise * rng.sample::<f64, _>(StandardNormal))
        .collect()
}

/// Sequences of the given steps with normal inputs, random targets and a random mask that keeps each last step.
pub fn batch(recipe: &Recipe, lengths: &[usize], seed: u64) -> Batch {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let steps = lengths.iter().copied().max().unwrap();
    let (x, y, size) = (recipe.task.input_width(), recipe.task.output_width(), lengths.len());
    let mut batch = Batch {
        steps,
        lengths: lengths.to_vec(),
        inputs: (0..steps * size * x).map(|_| rng.sample(StandardNormal)).collect(),
        targets: (0..steps * size * y).map(|_| rng.random_range(0..2) as f32).collect(),
        mask: vec![0.0; steps * size],
        ..Batch::default()
    };
    for t in 0..steps {
        for (b, &length) in lengths.iter().enumerate() {
            batch.mask[t * size + b] = (t + 1 == length || t < length && rng.random()) as u8 as f32;
        }
    }
    batch
}

/// A blur whose share of each shift is 1/32, so that f32 holds it exactly; of odd draws.
pub fn exact_blur(recipe: &Recipe, draw: usize) -> f64 {
    match &recipe.model {
        Config::Ntm(ntm) => (draw % 2 * ntm.shift_range) as f64 / 32.0,
        Config::Lstm(_) => 0.0,
    }
}
