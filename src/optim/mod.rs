//! Clip and optimizer: a few operations on flat vectors of theta's length, with state that a checkpoint can hold.

mod rule;
mod schedule;

pub use rule::Rule;
pub use schedule::{Schedule, between};

use crate::flat;
use crate::limits::{above_zero, fraction};
use crate::simd::{self, Level};
use anyhow::Result;
use rule::{Pass, norm};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// The `training.clip` section of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Clip {
    /// Scales the whole gradient so that its norm is at most `at`.
    Norm {
        at: f64,
    },
    /// Limits each element to +-`at`.
    Value {
        at: f64,
    },
    None,
}

/// The `training.optimizer` section of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Config {
    /// RMSProp with centring and momentum, as in Graves 2013 (arXiv 1308.0850), eq. 38-45.
    Rmsprop { learning_rate: f64, momentum: f64, decay: f64, epsilon: f64 },
    /// Adam (Kingma and Ba 2014, arXiv 1412.6980), algorithm 1.
    Adam { learning_rate: f64, beta1: f64, beta2: f64, epsilon: f64 },
}

impl Clip {
    /// The default of every kind, the usual one first.
    pub fn kinds() -> Vec<Clip> {
        vec![Clip::Norm { at: 0.3 }, Clip::Value { at: 10.0 }, Clip::None]
    }

    pub fn validate(&self) -> Result<()> {
        match self {
            Clip::Norm { at } | Clip::Value { at } => above_zero("training.clip.at", *at, 1e6),
            Clip::None => Ok(()),
        }
    }

    /// The norm after the clip of a gradient of this norm, where that follows from it.
    pub fn clipped(&self, norm: f64) -> Option<f64> {
        match self {
            Clip::Norm { at } => Some(norm.min(*at)),
            Clip::Value { .. } => None,
            Clip::None => Some(norm),
        }
    }

    /// What each element is multiplied by, then limited to (+-), for a gradient of this norm.
    fn scale_and_limit(&self, norm: f64) -> (f64, f64) {
        match self {
            Clip::Norm { at } if norm > *at => (at / norm, f64::INFINITY),
            Clip::Value { at } => (1.0, *at),
            _ => (1.0, f64::INFINITY),
        }
    }
}

impl Config {
    /// The default of every kind, the usual one first.
    pub fn kinds() -> Vec<Config> {
        vec![
            Config::Rmsprop { learning_rate: 3e-4, momentum: 0.9, decay: 0.95, epsilon: 1e-4 },
            Config::Adam { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
        ]
    }

    pub fn learning_rate(&self) -> f64 {
        match self {
            Config::Rmsprop { learning_rate, .. } | Config::Adam { learning_rate, .. } => *learning_rate,
        }
    }

    pub fn validate(&self) -> Result<()> {
        above_zero("training.optimizer.learning_rate", self.learning_rate(), 1e6)?;
        match self {
            Config::Rmsprop { momentum, decay, epsilon, .. } => {
                fraction("training.optimizer.momentum", *momentum)?;
                fraction("training.optimizer.decay", *decay)?;
                above_zero("training.optimizer.epsilon", *epsilon, 1e6)
            }
            Config::Adam { beta1, beta2, epsilon, .. } => {
                fraction("training.optimizer.beta1", *beta1)?;
                fraction("training.optimizer.beta2", *beta2)?;
                above_zero("training.optimizer.epsilon", *epsilon, 1e6)
            }
        }
    }
}

/// `Optimizer::update_later` by kernels of an engine's device.
pub trait DeviceUpdate {
    /// Queues the update; `vectors` are theta and then the state, in the order of `Optimizer::state_names`. Returns the
    /// norm, a scalar.
    fn update(
        &mut self,
        clip: &Clip,
        rule: &Rule,
        vectors: &[&Tensor],
        gradient: &Tensor,
        logits: &Tensor,
    ) -> Result<Tensor>;

    /// Forgets that something was not finite.
    fn recover(&mut self);
}

/// Clip and optimizer, and the state of the latter.
pub struct Optimizer {
    config: Config,
    clip: Clip,
    /// Named vectors of theta's length; zeros at the start.
    pub state: Vec<(&'static str, Tensor)>,
    /// A scalar on the device: 0, and not a number from the first `update_later` on that was given something not
    /// finite.
    broken: Option<Tensor>,
    kernels: Option<Box<dyn DeviceUpdate>>,
}

impl Optimizer {
    pub fn new(config: &Config, clip: &Clip, theta: &Tensor) -> Optimizer {
        let names = Optimizer::state_names(config);
        let state = names.iter().map(|name| (*name, theta.zeros_like())).collect();
        Optimizer { config: config.clone(), clip: clip.clone(), state, broken: None, kernels: None }
    }

    /// This optimizer with kernels for `update_later`, where an engine has some.
    pub fn with_kernels(self, kernels: Option<Box<dyn DeviceUpdate>>) -> Optimizer {
        Optimizer { kernels, ..self }
    }

    /// Forgets all that it has seen.
    pub fn reset(&mut self) {
        self.recover();
        for (_, vector) in &mut self.state {
            let _ = vector.zero_();
        }
    }

    pub fn state_names(config: &Config) -> &'static [&'static str] {
        match config {
            Config::Rmsprop { .. } => &["mean_square", "mean", "delta"],
            Config::Adam { .. } => &["mean", "mean_square"],
        }
    }

    /// Updates theta in place by the clipped gradient, all vectors f32 on the CPU; `step` counts from 1, `factor`
    /// multiplies the learning rate. Returns the gradient's norm before the clip; if that is not finite, nothing is
    /// updated. NaN if theta or the state was finite and is so no longer.
    pub fn update(&mut self, factor: f64, theta: &mut Tensor, gradient: &Tensor, step: u64) -> f64 {
        let gradient = flat::values(gradient).expect("f32 on the CPU; others are updated later");
        let norm = norm(gradient);
        if !norm.is_finite() {
            return norm;
        }
        let (scale, limit) = self.clip.scale_and_limit(norm);
        let rule = Rule::new(&self.config, factor, step);
        let values = |vector| flat::values_mut(vector).expect("all vectors lie where the gradient does");
        let mut states = self.state.iter_mut().map(|(_, vector)| values(vector));
        let states = std::array::from_fn(|_| states.next().unwrap_or_default());
        let (scale, limit, mut finite) = (scale as f32, limit as f32, true);
        let (theta, finite_after) = (values(theta), &mut finite);
        simd::run(Level::best(), Pass { rule, scale, limit, theta, gradient, states, finite: finite_after });
        if finite { norm } else { f64::NAN }
    }

    /// As `update`, of vectors of any kind, by operations that their device does in its time: nothing here waits for
    /// it. Returns the norm, a scalar. From the first norm or logit on that is not finite nothing is updated any more,
    /// so that theta stays what it was before, and the norm is NaN.
    pub fn update_later(
        &mut self,
        factor: f64,
        theta: &mut Tensor,
        gradient: &Tensor,
        logits: &Tensor,
        step: u64,
    ) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        if let Some(kernels) = &mut self.kernels {
            let vectors: Vec<&Tensor> =
                std::iter::once(&*theta).chain(self.state.iter().map(|(_, vector)| vector)).collect();
            return kernels.update(&self.clip, &Rule::new(&self.config, factor, step), &vectors, gradient, logits);
        }
        let norm = gradient.norm();
        let mut broken = (&norm + logits.sum(logits.kind())) * 0.0;
        if let Some(before) = &self.broken {
            broken += before;
        }
        let clipped = match &self.clip {
            Clip::Norm { at } => gradient * (norm.reciprocal() * *at).clamp_max(1.0),
            Clip::Value { at } => gradient.clamp(-at, *at),
            Clip::None => gradient.shallow_clone(),
        };
        let vectors = |theta: &Tensor, state: &[(&str, Tensor)]| -> Vec<Tensor> {
            std::iter::once(theta).chain(state.iter().map(|(_, vector)| vector)).map(Tensor::shallow_clone).collect()
        };
        let before: Vec<Tensor> = vectors(theta, &self.state).iter().map(Tensor::copy).collect();
        Rule::new(&self.config, factor, step).update_tensors(theta, &clipped, &mut self.state);
        let sound = broken.eq(0.0);
        for (after, before) in vectors(theta, &self.state).iter().zip(&before) {
            let _ = after.where_self_out(after, &sound, before);
        }
        let told = norm + &broken; // what the device refused, its reader must see
        self.broken = Some(broken);
        Ok(told)
    }

    /// Forgets that something was not finite.
    pub fn recover(&mut self) {
        self.broken = None;
        if let Some(kernels) = &mut self.kernels {
            kernels.recover();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rule::Square;
    use super::*;
    use crate::simd::Work;

    /// Both ways of doing an update: later, by tensor operations in f64, and at once, by the pass over slices of f32.
    fn updated(config: &Config, clip: &Clip, gradients: &[&[f64]]) -> [Vec<f64>; 2] {
        [tch::Kind::Double, tch::Kind::Float].map(|kind| {
            let mut theta = Tensor::ones([gradients[0].len() as i64], (kind, tch::Device::Cpu));
            let mut optimizer = Optimizer::new(config, clip, &theta);
            for (gradient, step) in gradients.iter().zip(1..) {
                let gradient = Tensor::from_slice(gradient).to_kind(kind);
                if kind == tch::Kind::Double {
                    let _ = optimizer.update_later(1.0, &mut theta, &gradient, &gradient, step).unwrap();
                } else {
                    optimizer.update(1.0, &mut theta, &gradient, step);
                }
            }
            Vec::try_from(theta.to_kind(tch::Kind::Double)).unwrap()
        })
    }

    fn close(values: [Vec<f64>; 2], expected: &[f64]) {
        for values in values {
            assert_eq!(values.len(), expected.len());
            for (value, expected) in values.iter().zip(expected) {
                assert!((value - expected).abs() < 5e-7, "{value} instead of {expected}");
            }
        }
    }

    const RMSPROP: Config = Config::Rmsprop { learning_rate: 0.1, momentum: 0.9, decay: 0.5, epsilon: 0.01 };

    #[test]
    fn two_steps_of_rmsprop_by_hand() {
        // square 2, mean 1, deviation sqrt(2 - 1 + 0.01) = 1.00498756, delta -0.1 * 2 / 1.00498756 = -0.19900744
        close(updated(&RMSPROP, &Clip::None, &[&[2.0]]), &[0.80099256]);
        // square 3, mean 1.5, deviation sqrt(0.76) = 0.87177979, delta 0.9 * -0.19900744 - 0.2 / 0.87177979 =
        // -0.40852243
        close(updated(&RMSPROP, &Clip::None, &[&[2.0], &[2.0]]), &[0.39247013]);
    }

    #[test]
    fn the_first_step_of_adam_is_the_learning_rate() {
        let config = Config::Adam { learning_rate: 0.1, beta1: 0.9, beta2: 0.999, epsilon: 1e-12 };
        close(updated(&config, &Clip::None, &[&[5.0, -0.01]]), &[0.9, 1.1]);
    }

    #[test]
    fn the_norm_clip_keeps_the_direction_and_the_value_clip_each_element() {
        let of = |clip: Clip, gradient: &[f64]| updated(&RMSPROP, &clip, &[gradient]);
        let unclipped = |gradient: &[f64]| of(Clip::None, gradient)[0].clone();
        close(of(Clip::Norm { at: 1.0 }, &[3.0, -4.0]), &unclipped(&[0.6, -0.8]));
        close(of(Clip::Norm { at: 10.0 }, &[3.0, -4.0]), &unclipped(&[3.0, -4.0]));
        close(of(Clip::Value { at: 1.0 }, &[3.0, -0.5]), &unclipped(&[1.0, -0.5]));
    }

    #[test]
    fn machines_with_fused_multiply_add_update_to_the_same_bits() {
        let mut rng = crate::random::stream(1, crate::random::Purpose::Weights, 0);
        let gradient: Vec<f32> = (0..1000).map(|_| rand::Rng::random_range(&mut rng, -1.0..1.0)).collect();
        for config in Config::kinds() {
            let rule = Rule::new(&config, 0.7, 3);
            let updated = |level: Option<Level>| {
                let (mut theta, mut states, mut finite) = (gradient.clone(), [(); 3].map(|()| gradient.clone()), false);
                states[0].iter_mut().for_each(|square| *square = square.abs());
                states[1].iter_mut().for_each(|other| *other = other.abs()); // Adam's square
                let mut square = 0.0;
                run(level, Square { values: &gradient, square: &mut square });
                let states = states.each_mut().map(Vec::as_mut_slice);
                let (theta_, gradient) = (&mut theta, &gradient);
                run(level, Pass { rule, scale: 0.3, limit: 0.2, theta: theta_, gradient, states, finite: &mut finite });
                assert!(finite);
                (square.to_bits(), theta.iter().map(|value| value.to_bits()).collect::<Vec<_>>())
            };
            let in_software = updated(None);
            for level in Level::available().split_off(1) {
                assert_eq!(updated(Some(level)), in_software, "{level:?}");
            }
        }
    }

    /// By the instructions of a level, or a fused multiply-add that each machine has, in software.
    fn run(level: Option<Level>, work: impl Work) {
        match level {
            Some(level) => simd::run(level, work),
            None => work.run::<simd::Fma>(),
        }
    }

    #[test]
    fn an_update_that_nobody_waits_for_is_the_same_update() {
        for config in Config::kinds() {
            for clip in [Clip::Norm { at: 1.0 }, Clip::Norm { at: 10.0 }, Clip::Value { at: 1.0 }, Clip::None] {
                let gradient = Tensor::from_slice(&[3.0_f32, -4.0, 0.5]);
                let mut thetas = [(); 2].map(|()| gradient.ones_like());
                let mut optimizers = [(); 2].map(|()| Optimizer::new(&config, &clip, &gradient));
                for step in 1..4 {
                    let norm = optimizers[0].update(0.5, &mut thetas[0], &gradient, step);
                    let later = optimizers[1].update_later(0.5, &mut thetas[1], &gradient, &gradient, step).unwrap();
                    assert!((later.double_value(&[]) / norm - 1.0).abs() < 1e-6);
                }
                let [now, later] = thetas.map(|theta| Vec::try_from(theta.to_kind(tch::Kind::Double)).unwrap());
                close([now.clone(), later], &now);
            }
        }
    }

    #[test]
    fn after_something_not_finite_nothing_is_updated_later_until_the_optimizer_recovers() {
        let sound = Tensor::from_slice(&[3.0_f32, -4.0]);
        for (gradient, logit) in [(f32::NAN, 0.0), (f32::INFINITY, 0.0), (1.0, f32::NAN), (1.0, f32::INFINITY)] {
            let (gradient, logits) = (Tensor::from_slice(&[gradient, 1.0]), Tensor::from_slice(&[logit]));
            let mut theta = sound.ones_like();
            let mut optimizer = Optimizer::new(&RMSPROP, &Clip::None, &theta);
            let mut later = |gradient: &Tensor, logits: &Tensor, recover| {
                if recover {
                    optimizer.recover();
                }
                let norm = optimizer.update_later(1.0, &mut theta, gradient, logits, 2).unwrap();
                (norm, theta.copy(), optimizer.state[2].1.copy())
            };
            let (_, before, state) = later(&sound, &sound, false);
            let _ = later(&gradient, &logits, false);
            let (norm, after, state_after) = later(&sound, &sound, false);
            assert!(norm.double_value(&[]).is_nan());
            assert_eq!((&after, &state_after), (&before, &state));
            let (_, after, _) = later(&sound, &sound, true);
            assert_ne!(after, before);
        }
    }

    #[test]
    fn a_huge_gradient_has_a_finite_norm_and_one_that_is_not_a_number_updates_nothing() {
        assert_eq!(norm(&[3e30, 4e30]), (3e30_f32 as f64).hypot(4e30_f32 as f64));
        assert_eq!(updated(&RMSPROP, &Clip::None, &[&[f64::NAN, 1.0]]), [[1.0, 1.0]; 2]);
    }
}
