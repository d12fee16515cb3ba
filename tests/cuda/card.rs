//! On a card, where there is one; else each test says why it did nothing. `cuda on_the_card --nocapture` prints what
//! differs by how much; the test binary needs no repository for these.

use crate::machines::compare::{LENGTHS, compare, composed, difference, narrow};
use crate::machines::{MACHINES, batch, recipe, weights};
use ntm::composed::Composed;
use ntm::config::Recipe;
use ntm::device::{self, DeviceChoice};
use ntm::engine::Engine;
use ntm::fused::CudaFused;
use ntm::tasks::{Batch, Source};
use ntm::train::Trainer;
use tch::{Device, Kind, Tensor};

/// The first card, or a line that says why not.
fn card() -> Option<Device> {
    device::choose(DeviceChoice::Cuda, Some(0), 1)
        .inspect_err(|error| eprintln!("skipped: {error}"))
        .ok()
        .map(|(device, _)| device)
}

fn engine(recipe: &Recipe) -> CudaFused {
    CudaFused::on_card(recipe.network(), 0).unwrap()
}

fn host(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.reshape([-1]).to_device(Device::Cpu).to_kind(Kind::Double)).unwrap()
}

#[test]
fn on_the_card_logits_and_every_gradient_equal_the_definition() {
    let Some(device) = card() else { return };
    println!(
        "largest difference of the whole gradient, relative to its largest value: fused, composed, both on the card"
    );
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        for snapshot_bytes in [0, usize::MAX] {
            let mut fused = engine(&recipe).with_snapshot_bytes(snapshot_bytes);
            for (draw, lengths) in LENGTHS.iter().enumerate() {
                let theta = weights(&recipe.layout(), 0.1, 10 + draw as u64);
                let batch = Batch { blur: 0.1 * (draw % 2) as f64, ..batch(&recipe, lengths, 10 + draw as u64) };
                let expected = composed(&recipe, &theta, &batch);
                let on_card = Tensor::from_slice(&narrow(&theta)).to_device(device);
                let mut gradients = [on_card.zeros_like(), on_card.zeros_like()];
                let logits = fused.logits_and_gradient(&on_card, &batch, &mut gradients[0]).unwrap();
                let definition = &mut Composed::new(recipe.network());
                definition.gradient(&on_card, &batch, &mut gradients[1]).unwrap();
                let [by_fused, by_composed] = gradients.each_ref().map(host);
                let apart = |values: &[f64]| difference(values, &expected.1, 0.0);
                println!("{name:42} {lengths:?}: {:.1e} {:.1e}", apart(&by_fused), apart(&by_composed));
                let logits = narrow(&host(&logits));
                compare(&format!("{name}, fused"), &recipe, &batch, &logits, &by_fused, &expected, 1e-4);
                compare(&format!("{name}, composed"), &recipe, &batch, &logits, &by_composed, &expected, 1e-4);
            }
        }
    }
}

#[test]
fn on_the_card_blocks_of_several_sequences_equal_the_definition() {
    let Some(device) = card() else { return };
    let more_rows = [
        ("200 rows", r#"{"controller": {"hidden": 12}, "memory": {"rows": 200, "width": 6}}"#),
        ("513 rows", r#"{"controller": {"hidden": 12}, "memory": {"rows": 513, "width": 5}, "read_heads": 2}"#),
    ];
    for (name, model) in [MACHINES[1], MACHINES[8], MACHINES[5], MACHINES[13]].iter().chain(&more_rows) {
        let recipe = recipe(model);
        for size in [7, 201, 301] {
            let lengths: Vec<usize> = (0..size).map(|i| 1 + i * 5 % 8).collect();
            let (theta, batch) = (weights(&recipe.layout(), 0.1, 3), batch(&recipe, &lengths, 3));
            let expected = composed(&recipe, &theta, &batch);
            let on_card = Tensor::from_slice(&narrow(&theta)).to_device(device);
            let mut gradient = on_card.zeros_like();
            let logits = engine(&recipe).logits_and_gradient(&on_card, &batch, &mut gradient).unwrap();
            let gradient = host(&gradient);
            println!("{name:42} {size} sequences: {:.1e}", difference(&gradient, &expected.1, 0.0));
            compare(name, &recipe, &batch, &narrow(&host(&logits)), &gradient, &expected, 1e-4);
        }
    }
}

#[test]
fn on_the_card_every_recipe_has_the_gradient_of_the_composed_engine() {
    let Some(device) = card() else { return };
    for (name, _) in ntm::config::BUILT_IN {
        let recipe = Recipe::load(name, &[]).unwrap();
        let theta = Tensor::from_slice(&recipe.layout().initial_theta(1)).to_device(device);
        let batch = Source::open(&recipe.task).unwrap().training_batch(1, 0, 2, 1.0).unwrap();
        let mut gradients = [theta.zeros_like(), theta.zeros_like()];
        let _ = engine(&recipe).logits_and_gradient(&theta, &batch, &mut gradients[0]).unwrap();
        Composed::new(recipe.network()).gradient(&theta, &batch, &mut gradients[1]).unwrap();
        let [fused, composed] = gradients.each_ref().map(host);
        let apart = difference(&fused, &composed, 0.0);
        println!("{name:42} {apart:.1e}");
        assert!(apart < 1e-3, "{name}: gradients differ by {apart:e}");
    }
}

#[test]
fn on_the_card_training_repeats_bit_for_bit() {
    let Some(device) = card() else { return };
    let run = || {
        let recipe = Recipe::parse(r#"{"training": {"batch_size": 5}}"#, &[]).unwrap();
        let source = Source::open(&recipe.task).unwrap();
        let mut trainer = Trainer::new(recipe.clone(), source, Box::new(engine(&recipe)), device);
        (0..10).for_each(|_| trainer.update().unwrap());
        trainer.settle().unwrap();
        let checkpoint = trainer.checkpoint();
        (checkpoint.theta, checkpoint.progress.window)
    };
    assert_eq!(run(), run());
}
