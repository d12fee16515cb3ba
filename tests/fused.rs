//! The fused engine is the definition, fast: logits, loss and every gradient by name against the composed engine.
#![allow(clippy::unwrap_used)]

mod machines;

use machines::compare::{LENGTHS, assert_traces_close, compare, composed, difference, narrow};
use machines::{MACHINES, batch, exact_blur, recipe, weights};
use ntm::composed::Composed;
use ntm::config::{BUILT_IN, Recipe};
use ntm::engine::Engine;
use ntm::fused::Fused;
use ntm::model::{Config, Emitted};
use ntm::optim::Optimizer;
use ntm::simd::Level;
use ntm::tasks::{Batch, Loss, Source};
use tch::Tensor;

fn level(recipe: &Recipe, level: Level, threads: usize) -> Fused<f32> {
    Fused::at_level(level, recipe.network(), threads).unwrap()
}

fn fused(recipe: &Recipe, threads: usize) -> Fused<f32> {
    Fused::new(recipe.network(), threads).unwrap()
}

#[test]
fn in_f64_logits_and_every_gradient_equal_the_definition_to_1e_9_at_every_instruction_level() {
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        for (draw, lengths) in LENGTHS.iter().enumerate() {
            let theta = weights(&recipe.layout(), 0.3, draw as u64);
            let batch = Batch { blur: exact_blur(&recipe, draw), ..batch(&recipe, lengths, draw as u64) };
            let expected = composed(&recipe, &theta, &batch);
            for level in Level::available() {
                let mut engine = Fused::at_level(level, recipe.network(), 1).unwrap();
                let mut gradient = vec![0.0; theta.len()];
                let logits = engine.logits_and_gradient(&theta, &batch, &mut gradient).to_vec();
                let name = format!("{name}, lengths {lengths:?}, {level:?}");
                compare(&name, &recipe, &batch, &logits, &gradient, &expected, 1e-9);
            }
        }
    }
}

#[test]
fn in_f32_logits_and_every_gradient_equal_the_definition_to_1e_4_at_every_instruction_level() {
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        for (draw, lengths) in LENGTHS.iter().enumerate() {
            let theta = weights(&recipe.layout(), 0.1, 10 + draw as u64);
            let batch = Batch { blur: 0.1 * (draw % 2) as f64, ..batch(&recipe, lengths, 10 + draw as u64) };
            let expected = composed(&recipe, &theta, &batch);
            for at in Level::available() {
                let mut gradient = vec![0.0; theta.len()];
                let logits = level(&recipe, at, 2).logits_and_gradient(&narrow(&theta), &batch, &mut gradient).to_vec();
                let gradient: Vec<f64> = gradient.iter().map(|&value| value as f64).collect();
                compare(
                    &format!("{name}, lengths {lengths:?}, {at:?}"),
                    &recipe,
                    &batch,
                    &logits,
                    &gradient,
                    &expected,
                    1e-4,
                );
            }
        }
    }
}

/// Logits and gradient in f32 by one thread, the gradient widened.
fn narrowly(recipe: &Recipe, theta: &[f64], batch: &Batch) -> (Vec<f32>, Vec<f64>) {
    let mut gradient = vec![0.0; theta.len()];
    let logits = fused(recipe, 1).logits_and_gradient(&narrow(theta), batch, &mut gradient).to_vec();
    (logits, gradient.into_iter().map(f64::from).collect())
}

#[test]
fn the_machine_of_every_built_in_recipe_has_the_logits_and_gradients_of_the_definition() {
    for (name, _) in BUILT_IN {
        let recipe = Recipe::load(name, &[]).unwrap();
        let theta = weights(&recipe.layout(), 0.05, 2); // more would saturate hundreds of inputs
        let batch = batch(&recipe, &[6, 2, 4], 2);
        let expected = composed(&recipe, &theta, &batch);
        let (logits, gradient) = narrowly(&recipe, &theta, &batch);
        compare(name, &recipe, &batch, &logits, &gradient, &expected, 1e-4);
    }
}

/// What names the place of a wrong sign.
#[test]
#[should_panic(expected = "plain: 3 gradients differ, tolerance 1e-4:
  2.0e0 heads.read.0.bias, strength
  1.0e0 heads.write.0.weight, add
  5.0e-1 controller.weight_hh_l0")]
fn a_comparison_lists_every_gradient_that_differs_the_worst_first() {
    let (name, model) = MACHINES[0];
    let recipe = recipe(model);
    let layout = recipe.layout();
    let theta = weights(&layout, 0.3, 1);
    let batch = batch(&recipe, &[7], 1);
    let expected = composed(&recipe, &theta, &batch);
    let (logits, mut gradient) = narrowly(&recipe, &theta, &batch);
    let emitted = Emitted::new(5, 3);
    gradient[layout.get("controller.weight_hh_l0").range()].iter_mut().for_each(|d| *d *= 1.5);
    gradient[layout.get("heads.read.0.bias").offset + emitted.strength()] *= -1.0;
    gradient[layout.get("heads.write.0.weight").range()][emitted.add().start * 7..].fill(0.0); // 7 hidden
    compare(name, &recipe, &batch, &logits, &gradient, &expected, 1e-4);
}

#[test]
fn long_sequences_whose_weight_gradients_are_summed_in_several_parts_equal_the_definition_to_1e_9() {
    let (name, model) = MACHINES[0];
    let recipe = recipe(model);
    let theta = weights(&recipe.layout(), 0.3, 3);
    let batch = batch(&recipe, &[300, 129, 128], 3); // a part is 128 steps
    let expected = composed(&recipe, &theta, &batch);
    let mut gradient = vec![0.0; theta.len()];
    let mut engine = Fused::<f64>::new(recipe.network(), 1).unwrap();
    let logits = engine.logits_and_gradient(&theta, &batch, &mut gradient).to_vec();
    compare(name, &recipe, &batch, &logits, &gradient, &expected, 1e-9);
}

#[test]
fn with_squared_loss_every_gradient_equals_the_definition() {
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        for lengths in LENGTHS {
            let theta = weights(&recipe.layout(), 0.3, 20);
            let mut batch = Batch { loss: Loss::Squared, ..batch(&recipe, lengths, 20) };
            batch.targets.iter_mut().zip(batch.inputs.iter().cycle()).for_each(|(target, input)| *target = 2.0 * input);
            let expected = composed(&recipe, &theta, &batch);
            let mut gradient = vec![0.0; theta.len()];
            let mut engine = Fused::<f64>::new(recipe.network(), 1).unwrap();
            let logits = engine.logits_and_gradient(&theta, &batch, &mut gradient).to_vec();
            compare(&format!("{name}, lengths {lengths:?}"), &recipe, &batch, &logits, &gradient, &expected, 1e-9);
        }
    }
}

/// Sequence b of a batch, in a batch of its own.
fn alone(batch: &Batch, b: usize) -> Batch {
    let column = |values: &[f32]| -> Vec<f32> {
        let rows = values.chunks(values.len() / batch.mask.len()).skip(b).step_by(batch.size());
        rows.take(batch.lengths[b]).flatten().copied().collect()
    };
    Batch {
        steps: batch.lengths[b],
        lengths: vec![batch.lengths[b]],
        inputs: column(&batch.inputs),
        targets: column(&batch.targets),
        mask: column(&batch.mask),
        loss: batch.loss,
        blur: batch.blur,
    }
}

#[test]
fn loss_and_gradient_of_a_mixed_batch_are_the_means_over_its_sequences_alone() {
    for task in ["copy", "repeat-copy", "associative-recall"] {
        let model = r#"{"controller": {"hidden": 6}, "memory": {"rows": 8, "width": 4}}"#;
        let text = format!(r#"{{"task": {{"kind": "{task}", "width": 3}}, "model": {model}}}"#);
        let recipe = Recipe::parse(&text, &[]).unwrap();
        let theta = weights(&recipe.layout(), 0.3, 1);
        let batch = Source::open(&recipe.task).unwrap().training_batch(1, 0, 6, 1.0).unwrap();
        assert!(batch.lengths.iter().any(|&length| length < batch.steps), "{task}: {:?}", batch.lengths);
        let alone: Vec<Batch> = (0..6).map(|b| alone(&batch, b)).collect();

        let mut engine = Fused::<f64>::new(recipe.network(), 1).unwrap();
        let fused = |batch: &Batch| {
            let mut gradient = vec![0.0; theta.len()];
            engine.logits_and_gradient(&theta, batch, &mut gradient);
            gradient
        };
        let definition = Composed::new(recipe.network());
        let loss = |batch: &Batch| {
            let logits = definition.logits(&Tensor::from_slice(&theta), batch);
            definition.loss(&logits, batch).double_value(&[])
        };
        let apart = (loss(&batch) - alone.iter().map(loss).sum::<f64>() / 6.0).abs();
        assert!(apart < 1e-7 * loss(&batch), "{task}: losses differ by {apart:e}"); // the weights of the loss are f32
        assert_mean_of(task, &theta, &batch, &alone, fused);
        assert_mean_of(task, &theta, &batch, &alone, |batch| composed(&recipe, &theta, batch).1);
    }
}

/// The gradient of a batch is the mean of those of its sequences alone; the weights of the loss are f32.
fn assert_mean_of(
    name: &str,
    theta: &[f64],
    batch: &Batch,
    alone: &[Batch],
    mut gradient: impl FnMut(&Batch) -> Vec<f64>,
) {
    let together = gradient(batch);
    let mut mean = vec![0.0; theta.len()];
    for sequence in alone {
        let share = gradient(sequence).into_iter().map(|value| value / alone.len() as f64);
        mean.iter_mut().zip(share).for_each(|(mean, value)| *mean += value);
    }
    let apart = difference(&together, &mean, 0.0);
    assert!(apart < 1e-7, "{name}: gradients differ by {apart:e}");
}

#[test]
fn extreme_weights_give_the_same_finite_gradients_as_the_definition() {
    // noise of 8 saturates gates and drives strength and sharpening into the tens
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        let theta = weights(&recipe.layout(), 8.0, 3);
        let batch = batch(&recipe, &[5, 3], 3);
        let expected = composed(&recipe, &theta, &batch);
        let mut engine = Fused::<f64>::new(recipe.network(), 1).unwrap();
        let mut gradient = vec![0.0; theta.len()];
        let logits = engine.logits_and_gradient(&theta, &batch, &mut gradient).to_vec();
        compare(name, &recipe, &batch, &logits, &gradient, &expected, 1e-7);
        let mut gradient = vec![0.0; theta.len()];
        fused(&recipe, 1).logits_and_gradient(&narrow(&theta), &batch, &mut gradient);
        assert!(gradient.iter().all(|value| value.is_finite()), "{name}");
    }
}

#[test]
fn where_strength_and_sharpening_are_nearly_flat_f32_gives_the_gradients_of_the_definition() {
    // The slopes of strength and sharpening at -10, sigmoid(-10) = 4.5e-5, are differences of numbers near 1, which f32
    // rounds by 6e-8: 1e-7 of the gradient that arrives there. `compare` holds that to 1e-4 of the matrix's largest
    // gradient.
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        let mut theta = weights(&recipe.layout(), 0.1, 5);
        let Config::Ntm(ntm) = &recipe.model else { continue };
        let emitted = Emitted::new(ntm.memory.width, ntm.shift_range);
        for parameter in &recipe.layout().parameters {
            if parameter.name.starts_with("heads.") && parameter.name.ends_with(".bias") {
                for at in [emitted.strength(), emitted.sharpening()] {
                    theta[parameter.offset + at] = -10.0;
                }
            }
        }
        let batch = batch(&recipe, &[7, 3], 5);
        let expected = composed(&recipe, &theta, &batch);
        let (logits, gradient) = narrowly(&recipe, &theta, &batch);
        compare(name, &recipe, &batch, &logits, &gradient, &expected, 1e-4);
    }
}

#[test]
fn a_memory_of_zeros_gives_finite_gradients() {
    let recipe =
        recipe(r#"{"controller": {"hidden": 6}, "memory": {"rows": 8, "width": 4}, "init": {"memory": "learned"}}"#);
    let layout = recipe.layout();
    let mut theta = weights(&layout, 0.3, 4);
    theta[layout.get("init.memory").range()].fill(0.0);
    let batch = batch(&recipe, &[6, 2], 4);
    let expected = composed(&recipe, &theta, &batch);
    let (logits, gradient) = narrowly(&recipe, &theta, &batch);
    compare("zero memory", &recipe, &batch, &logits, &gradient, &expected, 1e-4);
}

#[test]
#[should_panic(expected = "a sequence has no steps: [2, 0]")]
fn a_sequence_without_steps_is_refused() {
    let recipe = recipe(MACHINES[0].1);
    let theta = narrow(&weights(&recipe.layout(), 0.3, 6));
    fused(&recipe, 1).logits(&theta, &batch(&recipe, &[2, 0], 6));
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        let theta = narrow(&weights(&recipe.layout(), 0.3, 7));
        let batch = batch(&recipe, &[5, 9, 2, 7, 7, 1, 3, 9, 4, 6, 8, 2, 5], 7);
        let run = |threads| {
            let mut gradient = vec![0.0; theta.len()];
            let logits = fused(&recipe, threads).logits_and_gradient(&theta, &batch, &mut gradient).to_vec();
            (logits, gradient)
        };
        let one = run(1);
        for threads in [2, 3, 5] {
            assert_eq!(one, run(threads), "{name}, {threads} threads");
        }
    }
}

/// Threads share the work of a single sequence in some updates and not in others, as it pays at the moment.
#[test]
fn a_sequence_that_threads_share_gives_the_same_bits() {
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        let theta = narrow(&weights(&recipe.layout(), 0.3, 7));
        let batch = batch(&recipe, &[23], 7);
        let updates = |threads| {
            let mut engine = fused(&recipe, threads);
            std::array::from_fn::<_, 10, _>(|_| {
                let mut gradient = vec![0.0; theta.len()];
                (engine.logits_and_gradient(&theta, &batch, &mut gradient).to_vec(), gradient)
            })
        };
        let [first, others @ ..] = updates(1);
        for other in others.into_iter().chain(updates(2)).chain(updates(4)) {
            assert!(first == other, "{name}");
        }
    }
}

#[test]
fn a_batch_that_is_gone_through_in_parts_has_the_gradient_of_the_definition_and_the_same_bits_whatever_the_parts() {
    let recipe = Recipe::load("copy", &["task.width=3".to_string()]).unwrap();
    let theta = weights(&recipe.layout(), 0.1, 30);
    let lengths: Vec<usize> = (0..50).map(|b| 20 + b % 22).collect(); // some 20 MB of tapes
    let batch = batch(&recipe, &lengths, 30);
    let mut gradients = [1, 3, 5].map(|threads| {
        let mut gradient = vec![0.0; theta.len()];
        let logits = fused(&recipe, threads).logits_and_gradient(&narrow(&theta), &batch, &mut gradient).to_vec();
        (logits, gradient)
    });
    let (logits, gradient) = std::mem::take(&mut gradients[0]);
    assert!(gradients[1..].iter().all(|other| *other == (logits.clone(), gradient.clone())));
    let gradient: Vec<f64> = gradient.iter().map(|&value| value as f64).collect();
    let expected = composed(&recipe, &theta, &batch);
    compare("copy, fifty sequences", &recipe, &batch, &logits, &gradient, &expected, 1e-4);
}

#[test]
fn an_engine_that_has_seen_other_batches_gives_the_same_bits() {
    let recipe = recipe(MACHINES[8].1);
    let theta = narrow(&weights(&recipe.layout(), 0.3, 8));
    let batches = [batch(&recipe, &[9, 9, 3], 1), batch(&recipe, &[2], 2), batch(&recipe, &[5, 12, 1, 4, 4, 4], 3)];
    let mut used = fused(&recipe, 2);
    let mut gradients = [vec![0.0; theta.len()], vec![0.0; theta.len()]];
    for batch in &batches {
        used.logits(&theta, batch);
        let logits = used.logits_and_gradient(&theta, batch, &mut gradients[0]).to_vec();
        assert_eq!(logits, fused(&recipe, 2).logits_and_gradient(&theta, batch, &mut gradients[1]));
        assert_eq!(gradients[0], gradients[1]);
    }
}

#[test]
fn forward_alone_gives_the_logits_of_forward_and_backward() {
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        let theta = narrow(&weights(&recipe.layout(), 0.3, 9));
        let batch = batch(&recipe, &[11, 3, 8], 9);
        let mut engine = fused(&recipe, 2);
        let with_gradient = engine.logits_and_gradient(&theta, &batch, &mut vec![0.0; theta.len()]).to_vec();
        assert_eq!(engine.logits(&theta, &batch), with_gradient, "{name}");
    }
}

#[test]
fn the_trace_of_weightings_reads_erases_and_adds_equals_the_definition() {
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        let batch = batch(&recipe, &[6, 6, 6], 12);
        let theta = Tensor::from_slice(&narrow(&weights(&recipe.layout(), 0.3, 12)));
        let mut composed = Composed::new(recipe.network());
        let (traced, expected) =
            (Engine::trace(&mut fused(&recipe, 2), &theta, &batch).unwrap(), composed.trace(&theta, &batch).unwrap());
        assert_traces_close(name, &traced, &expected);
    }
}

#[test]
fn ten_training_steps_follow_the_definition() {
    let recipe = Recipe::parse(r#"{"training": {"batch_size": 3}}"#, &[]).unwrap();
    let mut engines: [Box<dyn Engine>; 2] =
        [Box::new(Composed::new(recipe.network())), Box::new(Fused::<f32>::new(recipe.network(), 2).unwrap())];
    let thetas = engines.each_mut().map(|engine| {
        let mut theta = Tensor::from_slice(&recipe.layout().initial_theta(1));
        let mut gradient = theta.zeros_like();
        let mut optimizer = Optimizer::new(&recipe.training.optimizer, &recipe.training.clip, &theta);
        for step in 0..10 {
            let batch = Source::open(&recipe.task).unwrap().training_batch(1, step, 3, 1.0).unwrap();
            engine.gradient(&theta, &batch, &mut gradient).unwrap();
            optimizer.update(1.0, &mut theta, &gradient, step + 1);
        }
        theta
    });
    let moved = (&thetas[0] - Tensor::from_slice(&recipe.layout().initial_theta(1))).abs().max().double_value(&[]);
    let apart = (&thetas[0] - &thetas[1]).abs().max().double_value(&[]);
    assert!(apart < 1e-4 * moved, "after ten steps weights differ by {apart:e}, having moved by {moved:e}");
}

#[test]
fn every_equation_heads_a_section_of_the_definition_its_tests_and_both_engines_forward_and_backward() {
    let headings = include_str!("../src/fused/derivation.md").lines().filter_map(|line| line.strip_prefix("## Eq. "));
    let equations: Vec<&str> = headings.map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(equations, ["3, 4", "2", "9", "8", "7", "5", "6"]);
    // addressing is one file each, the way back below these words
    let below = "Eq. 9-5 backwards";
    let cpu = include_str!("../src/fused/cpu/addressing.rs").split_once(below).unwrap();
    let cuda = include_str!("../src/fused/cuda/kernels/addressing.cu").split_once(below).unwrap();
    let tests = |text: &'static str| text.split_once("#[cfg(test)]").unwrap();
    let [addressing, similarity, convolution, memory] = [
        include_str!("../src/model/addressing.rs"),
        include_str!("../src/ops/cosine_similarity.rs"),
        include_str!("../src/ops/circular_convolution.rs"),
        include_str!("../src/model/memory.rs"),
    ]
    .map(tests);
    for (part, sources) in [
        ("the definition", &[addressing.0, similarity.0, convolution.0, memory.0][..]),
        ("the definition's tests", &[addressing.1, similarity.1, convolution.1, memory.1]),
        ("the CPU, forward", &[cpu.0, include_str!("../src/fused/cpu/forward.rs")]),
        ("the CPU, backward", &[cpu.1, include_str!("../src/fused/cpu/backward.rs")]),
        ("CUDA, forward", &[cuda.0, include_str!("../src/fused/cuda/kernels/forward.cu")]),
        ("CUDA, backward", &[cuda.1, include_str!("../src/fused/cuda/kernels/backward.cu")]),
    ] {
        for equation in &equations {
            let heading = format!("Eq. {equation}: ");
            assert!(sources.iter().any(|source| source.contains(&heading)), "no `{heading}` in {part}");
        }
    }
}
