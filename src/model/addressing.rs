//! Addressing: from a head's outputs to its weighting over the memory rows (paper, section 3.3).

use super::SHARPEN_EPSILON;
use super::config::Activation;
use crate::ops::{circular_convolution, cosine_similarity};
use tch::{Kind, Tensor};

/// What a head asks for in one step, after the activations.
pub struct Addressing {
    pub key: Tensor,        // (B, M)
    pub strength: Tensor,   // (B, 1), softplus: 0 and up
    pub gate: Tensor,       // (B, 1), sigmoid: 1 takes the content weighting, 0 keeps the previous one
    pub shift: Tensor,      // (B, S), softmax
    pub sharpening: Tensor, // (B, 1), 1 + softplus: 1 and up
}

impl Addressing {
    /// raw (B, M + 3 + S): key, strength, gate, shift, sharpening, before the activations. `blur`: see `Batch`.
    pub fn new(raw: &Tensor, memory_width: i64, shift_range: i64, key_activation: Activation, blur: f64) -> Addressing {
        let parts = raw.split_with_sizes([memory_width, 1, 1, shift_range, 1], 1);
        let shift = parts[3].softmax(1, None::<Kind>);
        Addressing {
            key: activate(&parts[0], key_activation),
            strength: parts[1].softplus(),
            gate: parts[2].sigmoid(),
            shift: if blur > 0.0 { shift * (1.0 - blur) + blur / shift_range as f64 } else { shift },
            sharpening: parts[4].softplus() + 1.0,
        }
    }

    /// memory (B, N, M), prev_weighting (B, N) -> weighting (B, N)
    pub fn weighting(&self, memory: &Tensor, prev_weighting: &Tensor) -> Tensor {
        // Eq. 5: content, softmax_i(strength K), K the cosine of Eq. 6
        let content = (&self.strength * cosine_similarity(&self.key, memory)).softmax(1, None::<Kind>);
        // Eq. 7: interpolation, g w^c + (1 - g) w_{t-1}
        let gated = &self.gate * content + (1.0 - &self.gate) * prev_weighting;
        // Eq. 8: circular convolution with the shift
        let shifted = circular_convolution(&gated, &self.shift);
        // Eq. 9: sharpening, w^gamma / sum, as softmax(gamma log w), so that the elements sum to 1: Eq. 1
        (&self.sharpening * (shifted + SHARPEN_EPSILON).log()).softmax(1, None::<Kind>)
    }
}

pub fn activate(raw: &Tensor, activation: Activation) -> Tensor {
    match activation {
        Activation::Linear => raw.shallow_clone(),
        Activation::Tanh => raw.tanh(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).view([1, -1])
    }

    fn values(tensor: Tensor) -> Vec<f64> {
        Vec::try_from(tensor.view(-1)).unwrap()
    }

    /// A head over two memory rows (1, 0) and (0, 1) that asks for the first.
    fn head(strength: f64, gate: f64, shift: [f64; 3], sharpening: f64) -> Addressing {
        let [strength, gate, sharpening] = [strength, gate, sharpening].map(|value| row(&[value]));
        Addressing { key: row(&[1.0, 0.0]), strength, gate, shift: row(&shift), sharpening }
    }

    fn memory() -> Tensor {
        Tensor::eye(2, (Kind::Double, tch::Device::Cpu)).unsqueeze(0)
    }

    // Eq. 5: w^c = softmax(strength K)
    #[test]
    fn the_content_weighting_is_a_softmax_of_strength_times_similarity() {
        let w = values(head(2.0, 1.0, [0.0, 1.0, 0.0], 1.0).weighting(&memory(), &row(&[0.5, 0.5])));
        // similarities 1 and 0: e^2 / (e^2 + 1) = 0.880797
        assert!((w[0] - 0.880797).abs() < 1e-5, "{w:?}");
    }

    // Eq. 7: w^g = g w^c + (1 - g) prev_w
    #[test]
    fn a_closed_gate_keeps_the_previous_weighting() {
        let w = values(head(2.0, 0.0, [0.0, 1.0, 0.0], 1.0).weighting(&memory(), &row(&[0.3, 0.7])));
        assert!((w[0] - 0.3).abs() < 1e-12 && (w[1] - 0.7).abs() < 1e-12, "{w:?}");
    }

    // Eq. 9: w~^gamma / sum
    #[test]
    fn sharpening_raises_to_a_power_and_normalises() {
        let w = values(head(0.0, 0.0, [0.0, 1.0, 0.0], 2.0).weighting(&memory(), &row(&[0.25, 0.75])));
        // 0.0625 / (0.0625 + 0.5625)
        assert!((w[0] - 0.1).abs() < 1e-12, "{w:?}");
    }

    #[test]
    fn huge_strength_and_sharpening_give_a_finite_one_hot_weighting() {
        let w = values(head(1e30, 1.0, [0.0, 1.0, 0.0], 1e30).weighting(&memory(), &row(&[0.5, 0.5])));
        assert_eq!(w, [1.0, 0.0]);
    }

    #[test]
    fn one_memory_row_always_has_all_the_weight() {
        let memory = Tensor::ones([1, 1, 2], (Kind::Double, tch::Device::Cpu));
        let w = values(head(3.0, 0.5, [0.2, 0.5, 0.3], 4.0).weighting(&memory, &row(&[1.0])));
        assert_eq!(w, [1.0]);
    }
}
