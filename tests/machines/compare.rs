//! Results against the definition: logits and every gradient by name.

use ntm::composed::Composed;
use ntm::config::Recipe;
use ntm::engine::{Engine, Trace};
use ntm::model::{Config, Emitted, Parameter};
use ntm::tasks::Batch;
use std::ops::Range;
use tch::Tensor;

/// Steps of the sequences of the batches that engines are compared on.
pub const LENGTHS: &[&[usize]] = &[&[1], &[7], &[13, 4, 9, 1, 13], &[6; 9]];

/// Logits and gradient of the definition, in f64.
pub fn composed(recipe: &Recipe, theta: &[f64], batch: &Batch) -> (Vec<f64>, Vec<f64>) {
    let mut engine = Composed::new(recipe.network());
    let theta = Tensor::from_slice(theta);
    let logits = tch::no_grad(|| engine.logits(&theta, batch).reshape(-1));
    let mut gradient = theta.zeros_like();
    engine.gradient(&theta, batch, &mut gradient).unwrap();
    (Vec::try_from(logits).unwrap(), Vec::try_from(gradient).unwrap())
}

pub fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

/// The largest difference, relative to the largest of the expected values or to `floor`.
pub fn difference(values: &[f64], expected: &[f64], floor: f64) -> f64 {
    assert_eq!(values.len(), expected.len());
    let apart = values.iter().zip(expected).map(|(value, expected)| (value - expected).abs());
    apart.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a }) / largest(expected).max(floor)
}

/// A parameter's gradient this much smaller than the largest one is what cancellation left over: rounding, not signal.
const NEGLIGIBLE: f64 = 1e-4;

/// What a failure tells apart: the rows of a head's matrix or bias by what they emit, every other parameter as a whole.
fn parts(recipe: &Recipe, parameter: &Parameter) -> Vec<(String, Range<usize>)> {
    let (name, range) = (&parameter.name, parameter.range());
    let Config::Ntm(ntm) = &recipe.model else { return vec![(name.clone(), range)] };
    if !name.starts_with("heads.") {
        return vec![(name.clone(), range)];
    }
    let at = Emitted::new(ntm.memory.width, ntm.shift_range);
    let one = |row: usize| row..row + 1;
    let emitted = [
        ("key", at.key()),
        ("strength", one(at.strength())),
        ("gate", one(at.gate())),
        ("shift", at.shift()),
        ("sharpening", one(at.sharpening())),
        ("erase", at.erase()),
        ("add", at.add()),
    ];
    let (rows, columns) = (parameter.shape[0], range.len() / parameter.shape[0]);
    let here = emitted.into_iter().filter(|(_, part)| part.end <= rows); // a read head erases and adds nothing
    let place = |row: usize| range.start + row * columns;
    here.map(|(part, at)| (format!("{name}, {part}"), place(at.start)..place(at.end))).collect()
}

/// Compares logits of real steps, which are 0 at padded ones, and every gradient by name. Each may differ by
/// `tolerance` times the largest of its parameter. A failure lists all that differ by more, the worst, relative to its
/// own largest, first.
pub fn compare(
    name: &str,
    recipe: &Recipe,
    batch: &Batch,
    logits: &[f32],
    gradient: &[f64],
    expected: &(Vec<f64>, Vec<f64>),
    tolerance: f64,
) {
    let (size, y) = (batch.size(), recipe.task.output_width());
    assert_eq!((logits.len(), expected.0.len()), (batch.steps * size * y, logits.len()), "{name}");
    assert_eq!((gradient.len(), expected.1.len()), (recipe.layout().size(), gradient.len()), "{name}");
    let real = |i: &usize| i / y / size < batch.lengths[i / y % size];
    let pick = |values: &dyn Fn(usize) -> f64| -> Vec<f64> { (0..logits.len()).filter(real).map(values).collect() };
    assert!((0..logits.len()).all(|i| real(&i) || logits[i] == 0.0), "{name}: logits of padded steps are not 0");
    let apart = difference(&pick(&|i| logits[i] as f64), &pick(&|i| expected.0[i]), 1e-3);
    assert!(apart < tolerance.max(1e-6), "{name}: logits differ by {apart:e}, tolerance {tolerance:e}");

    let floor = NEGLIGIBLE * largest(&expected.1);
    let mut wrong = vec![];
    for parameter in &recipe.layout().parameters {
        let scale = floor.max(largest(&expected.1[parameter.range()]));
        for (part, range) in parts(recipe, parameter) {
            let (values, expected) = (&gradient[range.clone()], &expected.1[range]);
            let apart = difference(values, expected, scale);
            if apart >= tolerance || apart.is_nan() {
                wrong.push((difference(values, expected, floor), part));
            }
        }
    }
    wrong.sort_by(|a, b| b.0.total_cmp(&a.0));
    let list: String = wrong.iter().map(|(apart, part)| format!("\n  {apart:.1e} {part}")).collect();
    assert!(wrong.is_empty(), "{name}: {} gradients differ, tolerance {tolerance:e}:{list}", wrong.len());
}

/// Asserts that two traces in f32 say the same of every step, within 1e-4.
pub fn assert_traces_close(name: &str, traced: &Trace, expected: &Trace) {
    let wide = |values: &[f32]| values.iter().map(|&value| value as f64).collect::<Vec<_>>();
    for (field, values, expected) in [
        ("weightings", &traced.weightings, &expected.weightings),
        ("strength, gate, sharpening", &traced.scalars, &expected.scalars),
        ("reads", &traced.reads, &expected.reads),
        ("erases", &traced.erases, &expected.erases),
        ("adds", &traced.adds, &expected.adds),
    ] {
        let apart = difference(&wide(values), &wide(expected), 1e-3);
        assert!(apart < 1e-4, "{name}: {field} differ by {apart:e}");
    }
}
