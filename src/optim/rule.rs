//! The equations of the optimizers, twice: as tensor operations for any device, and as one pass over vectors on the
//! CPU.

use super::Config;
use crate::simd::{self, Arch, Float, Level, Work};
use tch::Tensor;

/// An optimizer's equation with its numbers for one step.
#[derive(Clone, Copy)]
pub enum Rule {
    Rmsprop {
        learning_rate: f64,
        momentum: f64,
        decay: f64,
        epsilon: f64,
    },
    /// `rate` and `unbias_square` hold Adam's corrections for the zeros its averages start from.
    Adam {
        rate: f64,
        beta1: f64,
        beta2: f64,
        epsilon: f64,
        unbias_square: f64,
    },
}

impl Rule {
    pub fn new(config: &Config, factor: f64, step: u64) -> Rule {
        match *config {
            Config::Rmsprop { learning_rate, momentum, decay, epsilon } => {
                Rule::Rmsprop { learning_rate: learning_rate * factor, momentum, decay, epsilon }
            }
            Config::Adam { learning_rate, beta1, beta2, epsilon } => Rule::Adam {
                rate: learning_rate * factor / (1.0 - beta1.powf(step as f64)),
                beta1,
                beta2,
                epsilon,
                unbias_square: 1.0 / (1.0 - beta2.powf(step as f64)),
            },
        }
    }

    /// The update as a few operations on whole vectors, on any device.
    pub fn update_tensors(self, theta: &mut Tensor, gradient: &Tensor, states: &mut [(&str, Tensor)]) {
        match (self, states) {
            (Rule::Rmsprop { learning_rate, momentum, decay, epsilon }, [(_, square), (_, mean), (_, delta)]) => {
                lerp(square, &gradient.square(), 1.0 - decay);
                lerp(mean, gradient, 1.0 - decay);
                let deviation = ((&*square - mean.square()).clamp_min_(0.0) + epsilon).sqrt_(); // rounding can pass below 0
                let _ = delta.g_mul_scalar_(momentum);
                let _ = delta.g_sub_(&(gradient / deviation * learning_rate));
                let _ = theta.g_add_(delta);
            }
            (Rule::Adam { rate, beta1, beta2, epsilon, unbias_square }, [(_, mean), (_, square)]) => {
                lerp(mean, gradient, 1.0 - beta1);
                lerp(square, &gradient.square(), 1.0 - beta2);
                let deviation = (&*square * unbias_square).sqrt_() + epsilon;
                let _ = theta.g_sub_(&(&*mean / deviation * rate));
            }
            _ => unreachable!("the state belongs to the optimizer's kind"),
        }
    }
}

/// average <- (1 - share) average + share value
fn lerp(average: &mut Tensor, value: &Tensor, share: f64) {
    let _ = average.g_mul_scalar_(1.0 - share);
    let _ = average.g_add_(&(value * share));
}

/// The norm of a vector: in f32, and in f64 where that overflows.
pub fn norm(values: &[f32]) -> f64 {
    let mut square = 0.0;
    simd::run(Level::best(), Square { values, square: &mut square });
    if square.is_finite() {
        square.sqrt()
    } else {
        values.iter().map(|&value| (value as f64).powi(2)).sum::<f64>().sqrt()
    }
}

/// The sum of squares of a vector, in 32 partial sums.
pub(super) struct Square<'a> {
    pub values: &'a [f32],
    pub square: &'a mut f64,
}

impl Work for Square<'_> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let mut lanes = [0.0; 32];
        let (chunks, rest) = self.values.as_chunks::<32>();
        for chunk in chunks {
            for i in 0..32 {
                lanes[i] = A::fma(chunk[i], chunk[i], lanes[i]);
            }
        }
        let rest: f64 = rest.iter().map(|&value| (value as f64).powi(2)).sum();
        *self.square = lanes.iter().map(|&lane| lane as f64).sum::<f64>() + rest;
    }
}

/// Clip and update in one pass over vectors on the CPU.
pub struct Pass<'a> {
    pub rule: Rule,
    pub scale: f32,
    pub limit: f32,
    pub theta: &'a mut [f32],
    pub gradient: &'a [f32],
    pub states: [&'a mut [f32]; 3],
    /// Whether theta and the state are finite after it.
    pub finite: &'a mut bool,
}

impl Work for Pass<'_> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Pass { rule, scale, limit, theta, gradient, states: [first, second, third], finite } = self;
        let size = theta.len();
        let gradient = &gradient[..size];
        let clipped = |g: f32| (g * scale).larger(-limit).smaller(limit);
        let mut largest = 0; // of theta and the squares, which overflow before any other state does
        match rule {
            Rule::Rmsprop { learning_rate, momentum, decay, epsilon } => {
                let [rate, momentum, decay, epsilon] =
                    [learning_rate, momentum, decay, epsilon].map(|value| value as f32);
                let (square, mean, delta) = (&mut first[..size], &mut second[..size], &mut third[..size]);
                for i in 0..size {
                    let g = clipped(gradient[i]);
                    square[i] = A::fma(decay, square[i], (1.0 - decay) * g * g);
                    mean[i] = A::fma(decay, mean[i], (1.0 - decay) * g);
                    let deviation = ((square[i] - mean[i] * mean[i]).larger(0.0) + epsilon).sqrt(); // rounding can pass below 0
                    delta[i] = A::fma(momentum, delta[i], -(rate * g / deviation));
                    theta[i] += delta[i];
                    largest = largest.max(magnitude(theta[i])).max(magnitude(square[i]));
                }
            }
            Rule::Adam { rate, beta1, beta2, epsilon, unbias_square } => {
                let [rate, epsilon, unbias] = [rate, epsilon, unbias_square].map(|value| value as f32);
                // the shares from f64, since 1 - 0.999 in f32 is off by 1e-5
                let [(beta1, new1), (beta2, new2)] = [beta1, beta2].map(|beta| (beta as f32, (1.0 - beta) as f32));
                let (mean, square) = (&mut first[..size], &mut second[..size]);
                for i in 0..size {
                    let g = clipped(gradient[i]);
                    mean[i] = A::fma(beta1, mean[i], new1 * g);
                    square[i] = A::fma(beta2, square[i], new2 * g * g);
                    theta[i] += -(rate * mean[i] / ((square[i] * unbias).sqrt() + epsilon));
                    largest = largest.max(magnitude(theta[i])).max(magnitude(square[i]));
                }
            }
        }
        *finite = largest < f32::INFINITY.to_bits();
    }
}

/// Ordered as |value| is, infinity and NaN above all finite numbers. Of integers the largest is found without a branch.
#[inline(always)]
fn magnitude(value: f32) -> u32 {
    value.to_bits() & !(1 << 31)
}
