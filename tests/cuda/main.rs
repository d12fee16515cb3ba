//! The fused engine of CUDA without a card: its kernels, compiled as C++, are the definition, with one thread a block
//! and with several in any order; NVRTC compiles them for every card, and what it makes of them, interpreted, is the
//! definition, too. Where there is a card, the same on the card.
#![allow(clippy::unwrap_used)]

mod card;
mod compiled;
mod emulated;
#[path = "../machines/mod.rs"]
mod machines;
mod proof;
mod ptx;
mod training;

use emulated::{Emulated, barriers};
use machines::compare::{LENGTHS, assert_traces_close, compare, composed, narrow};
use machines::{MACHINES, batch, exact_blur, recipe, weights};
use ntm::config::Recipe;
use ntm::engine::Engine;
use ntm::fused::{CudaFused, Fused};
use ntm::model::Spec;
use ntm::tasks::{Batch, Loss};
use std::rc::Rc;
use tch::{Device, Kind, Tensor};

fn engine(recipe: &Recipe, launcher: Emulated, kind: Kind) -> CudaFused {
    CudaFused::new(recipe.network(), Rc::new(launcher), (kind, Device::Cpu)).unwrap()
}

/// The launcher with no more shared memory than the recipe's machine must have.
fn with_least_shared(recipe: &Recipe, launcher: impl Fn() -> Emulated) -> Emulated {
    let enough = |limit: &usize| {
        let launcher = Rc::new(launcher().with_shared_limit(*limit));
        CudaFused::new(recipe.network(), launcher, (Kind::Float, Device::Cpu)).is_ok()
    };
    launcher().with_shared_limit((1..).map(|k| k * 256).find(enough).unwrap())
}

/// Logits and gradient in f64, whatever the engine's kind.
fn run(engine: &mut CudaFused, theta: &[f64], batch: &Batch, kind: Kind) -> anyhow::Result<(Vec<f32>, Vec<f64>)> {
    let theta = Tensor::from_slice(theta).to_kind(kind);
    let mut gradient = theta.zeros_like();
    let logits = engine.logits_and_gradient(&theta, batch, &mut gradient)?.reshape([-1]).to_kind(Kind::Float);
    Ok((Vec::try_from(logits)?, Vec::try_from(gradient.to_kind(Kind::Double))?))
}

/// Compares an engine of every machine with the definition, on batches of the given lengths.
fn compare_all(
    lengths: &[&[usize]],
    noise: f64,
    kind: Kind,
    tolerance: f64,
    loss: Loss,
    make: impl Fn(&Recipe) -> CudaFused,
) {
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        for (draw, lengths) in lengths.iter().enumerate() {
            let theta = weights(&recipe.layout(), noise, draw as u64);
            let blur = exact_blur(&recipe, draw);
            let batch = Batch { loss, blur, ..batch(&recipe, lengths, draw as u64) };
            let expected = composed(&recipe, &theta, &batch);
            let (logits, gradient) = run(&mut make(&recipe), &theta, &batch, kind).unwrap();
            let name = format!("{name}, lengths {lengths:?}");
            compare(&name, &recipe, &batch, &logits, &gradient, &expected, tolerance);
        }
    }
}

const FEW: &[&[usize]] = &[&[1], &[5, 2, 7]];

#[test]
fn with_one_thread_a_block_every_gradient_equals_the_definition_to_1e_9_in_f64() {
    let one = |recipe: &Recipe| engine(recipe, Emulated::one_thread(Kind::Double), Kind::Double);
    compare_all(LENGTHS, 0.3, Kind::Double, 1e-9, Loss::CrossEntropy, one);
    compare_all(FEW, 0.3, Kind::Double, 1e-9, Loss::Squared, one);
}

#[test]
fn in_f32_logits_and_every_gradient_equal_the_definition_to_1e_4() {
    compare_all(LENGTHS, 0.1, Kind::Float, 1e-4, Loss::CrossEntropy, |recipe| {
        engine(recipe, Emulated::one_thread(Kind::Float), Kind::Float)
    });
}

#[test]
fn with_several_threads_in_any_order_every_gradient_equals_the_definition() {
    // blocks of 16 and 32 have warps enough for several to work on one head
    for (block, warp, together) in [(4, 4, 1), (12, 4, 2), (8, 1, 4), (16, 4, 1), (32, 2, 1), (64, 32, 8)] {
        compare_all(FEW, 0.3, Kind::Double, 1e-9, Loss::CrossEntropy, |recipe| {
            engine(recipe, Emulated::new(Kind::Double, block, warp, 1).with_together(together), Kind::Double)
        });
    }
    for (block, together) in [(64, 2), (128, 1)] {
        compare_all(FEW, 0.3, Kind::Double, 1e-9, Loss::CrossEntropy, |recipe| {
            let launcher = Emulated::new(Kind::Double, block, 32, 1).with_together(together).with_few_rows();
            engine(recipe, launcher, Kind::Double)
        });
    }
}

#[test]
fn the_order_of_the_threads_does_not_change_a_bit() {
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        let (theta, batch) = (weights(&recipe.layout(), 0.3, 5), batch(&recipe, &[5, 3], 5));
        // one warp a head, and several; memories replayed and kept, in shared memory and beside it
        for (block, warp, together, snapshot_bytes, beside) in
            [(8, 4, 2, usize::MAX, false), (16, 4, 1, 0, false), (32, 2, 1, 0, true), (16, 2, 4, 0, false)]
        {
            let with_seed = |seed| {
                let launcher = || Emulated::new(Kind::Float, block, warp, seed).with_together(together);
                let launcher = if beside { with_least_shared(&recipe, launcher) } else { launcher() };
                let mut engine = engine(&recipe, launcher, Kind::Float).with_snapshot_bytes(snapshot_bytes);
                run(&mut engine, &theta, &batch, Kind::Float).unwrap()
            };
            let first = with_seed(1);
            assert!(first.1.iter().all(|value| value.is_finite()), "{name}");
            for seed in 2..6 {
                assert_eq!(first, with_seed(seed), "{name}, {block} threads in warps of {warp}, seed {seed}");
            }
        }
    }
}

#[test]
fn without_any_one_barrier_the_order_of_the_threads_changes_the_result() {
    // "plain" has fewer heads than a block has warps, so that several work on one
    let machines: Vec<(Recipe, Vec<f64>, Batch, usize)> =
        [("many heads", 2), ("feedforward, two layers, many heads", 2), ("baseline of three layers", 2), ("plain", 1)]
            .iter()
            .map(|&(name, together)| {
                let recipe = recipe(MACHINES.iter().find(|(other, _)| *other == name).unwrap().1);
                let (theta, batch) = (weights(&recipe.layout(), 0.3, 6), batch(&recipe, &[6, 3], 6));
                (recipe, theta, batch, together)
            })
            .collect();
    let results = |skip: Option<u32>, seed, shared: bool| -> Vec<_> {
        let all = machines.iter().map(|(recipe, theta, batch, together)| {
            let mut launcher = Emulated::new(Kind::Double, 16, 4, seed).with_together(*together);
            if let Some(barrier) = skip {
                launcher = launcher.without_barrier(barrier);
            }
            if !shared {
                launcher = launcher.with_shared_limit(9000);
            }
            let mut engine = engine(recipe, launcher, Kind::Double).with_snapshot_bytes(0);
            run(&mut engine, theta, batch, Kind::Double).map_err(|error| error.to_string())
        });
        all.collect()
    };
    let whole = [true, false].map(|shared| results(None, 0, shared));
    for (shared, whole) in [true, false].into_iter().zip(&whole) {
        assert!(whole.iter().flatten().all(|(_, gradient)| gradient.iter().all(|value| value.is_finite())));
        for seed in 1..9 {
            assert_eq!(&results(None, seed, shared), whole, "with every barrier, seed {seed}");
        }
    }
    let met = barriers(Kind::Double);
    assert!(met.len() > 13, "{met:?}");
    for barrier in met {
        let seen = (1..9).any(|seed| (0..2).any(|i| results(Some(barrier), seed, i == 0) != whole[i]));
        assert!(seen, "barrier {barrier} of the source makes no difference");
    }
}

#[test]
fn memories_outside_of_shared_memory_and_replayed_ones_give_the_same_result() {
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        let (theta, batch) = (weights(&recipe.layout(), 0.3, 8), batch(&recipe, &[11, 4, 9], 8));
        let results = [false, true].map(|beside| {
            let [replayed, kept] = [0, usize::MAX].map(|snapshot_bytes| {
                let launcher = || Emulated::new(Kind::Float, 8, 4, 3);
                let launcher = if beside { with_least_shared(&recipe, launcher) } else { launcher() };
                let mut engine = engine(&recipe, launcher, Kind::Float).with_snapshot_bytes(snapshot_bytes);
                run(&mut engine, &theta, &batch, Kind::Float).unwrap()
            });
            assert!(replayed == kept, "{name}, beside shared memory: {beside}: replayed memories change the result");
            kept.1
        });
        // without weights in shared memory the sums have another order
        let apart = machines::compare::difference(&results[0], &results[1], 0.0);
        assert!(apart < 1e-5, "{name}: without room in shared memory the gradient differs by {apart:e}");
    }
}

#[test]
fn extreme_weights_give_the_gradients_of_the_definition_and_finite_ones_in_f32() {
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        let (theta, batch) = (weights(&recipe.layout(), 8.0, 3), batch(&recipe, &[5, 3], 3));
        let expected = composed(&recipe, &theta, &batch);
        let mut double = engine(&recipe, Emulated::one_thread(Kind::Double), Kind::Double);
        let (logits, gradient) = run(&mut double, &theta, &batch, Kind::Double).unwrap();
        compare(name, &recipe, &batch, &logits, &gradient, &expected, 1e-7);
        let mut single = engine(&recipe, Emulated::one_thread(Kind::Float), Kind::Float);
        let (_, gradient) = run(&mut single, &theta, &batch, Kind::Float).unwrap();
        assert!(gradient.iter().all(|value| value.is_finite()), "{name}");
    }
}

#[test]
fn forward_alone_and_a_used_engine_give_the_same_bits() {
    let recipe = recipe(MACHINES[8].1);
    let theta = Tensor::from_slice(&narrow(&weights(&recipe.layout(), 0.3, 9)));
    let mut used = engine(&recipe, Emulated::new(Kind::Float, 8, 4, 1), Kind::Float);
    for (seed, lengths) in [(1, &[9, 9, 3][..]), (2, &[2]), (3, &[5, 12, 1, 4, 4, 4])] {
        let batch = Batch { blur: exact_blur(&recipe, seed as usize), ..batch(&recipe, lengths, seed) };
        let mut gradients = [theta.zeros_like(), theta.zeros_like()];
        let forward = used.logits(&theta, &batch).unwrap();
        assert_eq!(forward, used.logits_and_gradient(&theta, &batch, &mut gradients[0]).unwrap());
        let mut fresh = engine(&recipe, Emulated::new(Kind::Float, 8, 4, 1), Kind::Float);
        assert_eq!(forward, fresh.logits_and_gradient(&theta, &batch, &mut gradients[1]).unwrap());
        assert_eq!(gradients[0], gradients[1]);
    }
}

#[test]
fn the_trace_equals_the_cpus() {
    for (name, model) in MACHINES {
        let recipe = recipe(model);
        let batch = batch(&recipe, &[6, 6, 6], 12);
        let theta = Tensor::from_slice(&narrow(&weights(&recipe.layout(), 0.3, 12)));
        let traced = engine(&recipe, Emulated::one_thread(Kind::Float), Kind::Float).trace(&theta, &batch).unwrap();
        let expected = Engine::trace(&mut Fused::<f32>::new(recipe.network(), 1).unwrap(), &theta, &batch).unwrap();
        assert_traces_close(name, &traced, &expected);
    }
}

#[test]
fn a_machine_too_large_for_a_block_is_refused_with_its_size() {
    let recipe = recipe(r#"{"memory": {"rows": 65536, "width": 2}}"#);
    let launcher = Rc::new(Emulated::one_thread(Kind::Float));
    let made = CudaFused::new(Spec::new(&recipe.model, 4, 3), launcher, (Kind::Float, Device::Cpu));
    let message = made.err().expect("its weightings alone take 1.5 MB").to_string();
    assert!(message.contains("bytes of shared memory, this card has 232448"), "{message}");
}
