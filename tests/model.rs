//! The definition: gradients of every parameter against finite differences in f64, public shapes, symmetry.
#![allow(clippy::unwrap_used)]

mod machines;

use machines::{MACHINES, batch, recipe, weights};
use ntm::composed::Composed;
use ntm::config::Recipe;
use ntm::engine::Engine;
use ntm::tasks::{Batch, Loss};
use tch::{Kind, Tensor};

fn composed(recipe: &Recipe) -> Composed {
    Composed::new(recipe.network())
}

fn loss(engine: &Composed, theta: &[f64], batch: &Batch) -> f64 {
    tch::no_grad(|| engine.loss(&engine.logits(&Tensor::from_slice(theta), batch), batch).double_value(&[]))
}

#[test]
fn every_gradient_equals_the_finite_difference_in_f64() {
    for (name, model) in MACHINES.iter().filter(|(name, _)| *name != "notebook sizes") {
        let recipe = recipe(model);
        let (mut engine, layout) = (composed(&recipe), recipe.layout());
        let mut theta = weights(&layout, 0.3, 5);
        let batch = Batch { blur: 0.2, ..batch(&recipe, &[4, 3], 6) };
        let mut gradient = Tensor::zeros([layout.size() as i64], (Kind::Double, tch::Device::Cpu));
        engine.gradient(&Tensor::from_slice(&theta), &batch, &mut gradient).unwrap();
        let gradient = Vec::<f64>::try_from(&gradient).unwrap();
        for parameter in &layout.parameters {
            // the first, the last, and a few between
            let (range, stride) = (parameter.range(), parameter.len().div_ceil(4));
            for at in range.clone().step_by(stride).chain([range.end - 1]) {
                let (step, value) = (1e-6, theta[at]);
                theta[at] = value + step;
                let above = loss(&engine, &theta, &batch);
                theta[at] = value - step;
                let below = loss(&engine, &theta, &batch);
                theta[at] = value;
                let expected = if parameter.learned { (above - below) / (2.0 * step) } else { 0.0 };
                let difference = (gradient[at] - expected).abs();
                assert!(
                    difference < 1e-8 + 1e-6 * expected.abs(),
                    "{name}, `{}` at {}: gradient {}, finite difference {expected}",
                    parameter.name,
                    at - range.start,
                    gradient[at]
                );
            }
        }
    }
}

#[test]
fn squared_loss_is_the_mean_over_sequences_of_their_mean_square() {
    let recipe = recipe(r#"{"controller": {"hidden": 2}, "memory": {"rows": 2, "width": 2}}"#);
    // T 2, B 2, Y 3: sequence 0 counts at both steps, sequence 1 at the first only; every error of step t is t + 1 or 5
    let (targets, mask) = (vec![0.0; 12], vec![1.0, 1.0, 1.0, 0.0]);
    let batch = Batch { steps: 2, lengths: vec![2, 1], targets, mask, loss: Loss::Squared, ..Batch::default() };
    let outputs = [[1.0f64; 3], [5.0; 3], [2.0; 3], [9.0; 3]].concat();
    let loss = composed(&recipe).loss(&Tensor::from_slice(&outputs).view([2, 2, 3]), &batch).double_value(&[]);
    // ((1 + 4) / 2 + 25) / 2; the weights of the loss are f32
    assert!((loss - 13.75).abs() < 1e-5, "{loss}");
}

#[test]
fn logits_have_a_row_for_every_step_and_sequence() {
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        let batch = batch(&recipe, &[3, 5], 1);
        let theta = Tensor::from_slice(&weights(&recipe.layout(), 0.1, 1));
        assert_eq!(composed(&recipe).logits(&theta, &batch).size(), [5, 2, 3], "{name}: (T, B, Y)");
    }
}

#[test]
fn with_equal_rows_and_uniform_weightings_nothing_can_tell_the_rows_apart() {
    // design: constant memory and uniform weightings never break the symmetry, so no gradient reaches the shift
    let recipe = recipe(
        r#"{"controller": {"hidden": 6}, "memory": {"rows": 5, "width": 4}, "init": {"memory": "constant", "weighting": "uniform"}}"#,
    );
    let layout = recipe.layout();
    let batch = batch(&recipe, &[6, 6], 2);
    let mut gradient = Tensor::zeros([layout.size() as i64], (Kind::Double, tch::Device::Cpu));
    composed(&recipe).gradient(&Tensor::from_slice(&weights(&layout, 0.3, 3)), &batch, &mut gradient).unwrap();
    let gradient = Vec::<f64>::try_from(&gradient).unwrap();
    // the first 4 + 3 + 3 outputs of both heads: key, strength, gate, shift, sharpening. All of them address, none
    // matters
    for head in ["read", "write"] {
        for (name, columns) in [("bias", 1), ("weight", 6)] {
            let name = format!("heads.{head}.0.{name}");
            let addressing = &gradient[layout.get(&name).range()][..10 * columns];
            assert!(addressing.iter().all(|d| d.abs() < 1e-9), "{name}: {addressing:?}");
        }
    }
    assert!(gradient[layout.get("output.bias").range()].iter().any(|d| d.abs() > 1e-3));
}
