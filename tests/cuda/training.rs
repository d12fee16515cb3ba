//! Training where results stay on the device until a report: the emulated engine stands for a card.

use crate::emulated::Emulated;
use crate::engine;
use anyhow::Result;
use ntm::config::Recipe;
use ntm::engine::{Engine, EngineKind, Logits, Trace};
use ntm::fused::Fused;
use ntm::fused::cuda::UpdateKernels;
use ntm::optim::{Clip, Config, DeviceUpdate, Optimizer};
use ntm::tasks::{Batch, Source};
use ntm::train::Trainer;
use std::rc::Rc;
use tch::{Device, Kind, Tensor};

fn recipe() -> Recipe {
    let text = r#"{"task": {"kind": "copy", "width": 3, "max_length": 4}, "training": {"batch_size": 3, "average": 0.9, "blur": {"kind": "ramp", "at": 0.2, "hold": 0.0, "full": 0.0}},
        "model": {"controller": {"hidden": 8}, "memory": {"rows": 8, "width": 4}}}"#;
    Recipe::parse(text, &[]).unwrap()
}

fn trainer(engine: Box<dyn Engine>) -> Trainer {
    let recipe = recipe();
    let source = Source::open(&recipe.task).unwrap();
    Trainer::new(recipe, source, engine, Device::Cpu)
}

fn emulated() -> Box<dyn Engine> {
    Box::new(engine(&recipe(), Emulated::one_thread(Kind::Float), Kind::Float))
}

#[test]
fn a_run_whose_results_are_read_late_is_the_run_on_the_cpu() {
    let mut late = trainer(emulated());
    let mut cpu = trainer(Box::new(Fused::<f32>::new(recipe().network(), 1).unwrap()));
    for _ in 0..20 {
        late.update().unwrap();
        cpu.update().unwrap();
    }
    assert_eq!(late.progress.window.updates, 0, "nothing has been read yet");
    late.settle().unwrap();
    let (late, cpu) = (late.checkpoint(), cpu.checkpoint());
    let (window, expected) = (&late.progress.window, &cpu.progress.window);
    assert_eq!((late.progress.step, late.progress.sequences), (20, 60));
    assert_eq!((window.updates, window.totals.sequences), (20, 60));
    assert!((window.totals.loss / expected.totals.loss - 1.0).abs() < 1e-5, "{window:?} {expected:?}");
    assert!((window.grad_norms / expected.grad_norms - 1.0).abs() < 1e-4, "{window:?} {expected:?}");
    assert!((window.clipped_norms / expected.clipped_norms - 1.0).abs() < 1e-4, "{window:?} {expected:?}");
    for (index, (late, cpu)) in late.theta.iter().zip(&cpu.theta).enumerate() {
        assert!((late - cpu).abs() < 1e-5, "weight {index} is {late}, on the CPU {cpu}"); // not so where one is NaN
    }
}

/// An engine whose gradient is not a number in the update after `left` more.
struct Failing {
    engine: Box<dyn Engine>,
    left: usize,
}

impl Engine for Failing {
    fn kind(&self) -> EngineKind {
        self.engine.kind()
    }

    fn update_kernels(&self, theta: &Tensor) -> Option<Box<dyn DeviceUpdate>> {
        self.engine.update_kernels(theta)
    }

    fn forward(&mut self, theta: &Tensor, batch: &Batch) -> Result<&[f32]> {
        self.engine.forward(theta, batch)
    }

    fn trace(&mut self, theta: &Tensor, batch: &Batch) -> Result<Trace> {
        self.engine.trace(theta, batch)
    }

    fn gradient(&mut self, theta: &Tensor, batch: &Batch, gradient: &mut Tensor) -> Result<Logits<'_>> {
        let logits = self.engine.gradient(theta, batch, gradient);
        if self.left == 0 {
            let _ = gradient.narrow(0, 7, 1).fill_(f64::NAN);
        }
        self.left = self.left.saturating_sub(1);
        logits
    }
}

#[test]
fn a_gradient_that_is_not_finite_is_told_with_its_update_and_leaves_the_weights() {
    let mut sound = trainer(emulated());
    let mut failing = trainer(Box::new(Failing { engine: emulated(), left: 4 }));
    for _ in 0..4 {
        sound.update().unwrap();
    }
    for _ in 0..9 {
        failing.update().unwrap();
    }
    sound.settle().unwrap();
    let message = failing.settle().unwrap_err().to_string();
    assert!(
        message.starts_with("the gradient of `controller.weight_ih_l0` is not a finite number at update 5"),
        "{message}"
    );
    let (sound, failed) = (sound.checkpoint(), failing.checkpoint());
    assert_eq!((failed.progress.step, failed.progress.sequences), (4, 12));
    assert_eq!((failed.theta, failed.optimizer), (sound.theta, sound.optimizer));
    assert_eq!(failed.progress.window, sound.progress.window);
}

/// An optimizer with emulated kernels.
fn optimizer(config: &Config, clip: &Clip, theta: &Tensor, block: usize, warp: usize) -> Optimizer {
    let launcher = Rc::new(Emulated::new(Kind::Float, block, warp, 1));
    Optimizer::new(config, clip, theta).with_kernels(Some(Box::new(UpdateKernels::new(launcher, theta))))
}

#[test]
fn the_kernels_of_the_optimizer_update_as_it_does() {
    for (block, warp) in [(1, 1), (12, 4), (64, 32)] {
        for config in Config::kinds() {
            for clip in [Clip::Norm { at: 1.0 }, Clip::Norm { at: 100.0 }, Clip::Value { at: 0.4 }, Clip::None] {
                let gradient = Tensor::from_slice(&(0..700).map(|i| (i as f32).sin()).collect::<Vec<_>>());
                let mut thetas = [(); 2].map(|()| gradient.ones_like());
                let mut optimizers =
                    [Optimizer::new(&config, &clip, &gradient), optimizer(&config, &clip, &gradient, block, warp)];
                for step in 1..5 {
                    let norm = optimizers[0].update(0.5, &mut thetas[0], &gradient, step);
                    let later = optimizers[1].update_later(0.5, &mut thetas[1], &gradient, &gradient, step);
                    assert!((later.unwrap().double_value(&[]) / norm - 1.0).abs() < 1e-6);
                }
                let pairs = |of: &dyn Fn(usize) -> Vec<Tensor>| of(0).into_iter().zip(of(1)).collect::<Vec<_>>();
                let vectors = |which: usize| {
                    let state = optimizers[which].state.iter().map(|(_, vector)| vector.shallow_clone());
                    state.chain([thetas[which].shallow_clone()]).collect()
                };
                for (expected, values) in pairs(&vectors) {
                    let apart = (values - &expected).abs().max().double_value(&[]);
                    let largest = expected.abs().max().double_value(&[]);
                    assert!(
                        apart <= 2e-6 * largest,
                        "{config:?}, {clip:?}, blocks of {block}: {apart:e} of {largest:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_kernels_of_the_optimizer_update_nothing_after_something_that_is_not_finite() {
    let sound = Tensor::from_slice(&[3.0_f32, -4.0]);
    for (gradient, logit) in [(f32::NAN, 0.0), (f32::INFINITY, 0.0), (1.0, f32::NAN), (1.0, f32::INFINITY)] {
        let (gradient, logits) = (Tensor::from_slice(&[gradient, 1.0]), Tensor::from_slice(&[logit]));
        let mut theta = sound.ones_like();
        let mut optimizer = optimizer(&Config::kinds()[0], &Clip::None, &theta, 8, 4);
        let mut later = |gradient: &Tensor, logits: &Tensor, recover| {
            if recover {
                optimizer.recover();
            }
            let norm = optimizer.update_later(1.0, &mut theta, gradient, logits, 2).unwrap();
            (norm.double_value(&[]), theta.copy(), optimizer.state[2].1.copy())
        };
        let (norm, before, state) = later(&sound, &sound, false);
        assert_eq!(norm, 5.0);
        assert!(!later(&gradient, &logits, false).0.is_finite());
        for _ in 0..2 {
            let (norm, after, state_after) = later(&sound, &sound, false);
            assert!(norm.is_nan());
            assert_eq!((&after, &state_after), (&before, &state));
        }
        assert_ne!(later(&sound, &sound, true).1, before);
    }
}
