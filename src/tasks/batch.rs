//! A batch of sequences on the host: what an engine runs and what a task writes.

use rand::{Rng, RngCore};
use serde::{Deserialize, Serialize};

/// A batch, time-major and row-major. Sequences shorter than `steps` are padded at their end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// T, the steps of the longest sequence.
    pub steps: usize,
    /// The steps of each sequence, at least 1 (B).
    pub lengths: Vec<usize>,
    pub inputs: Vec<f32>,  // (T, B, X)
    pub targets: Vec<f32>, // (T, B, Y)
    /// 1 where the output counts, else 0.
    pub mask: Vec<f32>, // (T, B)
    pub loss: Loss,
    /// What is mixed into every head's shift: (1 - blur) s + blur / S. Only training does (`training.blur`).
    pub blur: f64,
}

/// What the training loss takes the mean of, for each output that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Sigmoid cross-entropy of a logit and a target of 0 or 1.
    #[default]
    CrossEntropy,
    /// The square of output minus target.
    Squared,
}

impl Loss {
    /// What a network says by a logit: the probability of a 1, or the value itself.
    pub fn output(self, logit: f32) -> f32 {
        match self {
            Loss::CrossEntropy => 1.0 / (1.0 + (-logit).exp()),
            Loss::Squared => logit,
        }
    }
}

impl Batch {
    /// B, the number of sequences.
    pub fn size(&self) -> usize {
        self.lengths.len()
    }

    /// An empty batch of zeros for sequences of the given steps.
    pub fn zeros(lengths: Vec<usize>, input_width: usize, output_width: usize) -> Batch {
        let steps = lengths.iter().copied().max().unwrap_or(0);
        let rows = steps * lengths.len();
        Batch {
            steps,
            lengths,
            inputs: vec![0.0; rows * input_width],
            targets: vec![0.0; rows * output_width],
            mask: vec![0.0; rows],
            loss: Loss::default(),
            blur: 0.0,
        }
    }

    /// What the blur makes of a head's shift s over so many turns, scale s + floor: [scale, floor]
    pub fn mix(&self, shifts: usize) -> [f64; 2] {
        [1.0 - self.blur, self.blur / shifts.max(1) as f64]
    }

    /// What each masked output weighs in the training loss, which is the mean over the batch of each
    /// sequence's mean loss per target value: mask / (B * masked steps of the sequence * Y). Shape (T, B).
    pub fn loss_weights(&self, output_width: usize) -> Vec<f32> {
        let size = self.size().max(1);
        let mut masked_steps = vec![0.0; size];
        for step in self.mask.chunks_exact(size) {
            masked_steps.iter_mut().zip(step).for_each(|(sum, mask)| *sum += mask);
        }
        let outputs = (size * output_width) as f32;
        let weight = |(mask, steps): (&f32, &f32)| mask / outputs / steps.max(1.0);
        self.mask.chunks_exact(size).flat_map(|step| step.iter().zip(&masked_steps).map(weight)).collect()
    }

    /// Sequence b, to be written or read.
    pub fn column(&mut self, b: usize) -> Column<'_> {
        Column { b, batch: self }
    }
}

/// One sequence of a batch.
pub struct Column<'a> {
    batch: &'a mut Batch,
    b: usize,
}

impl Column<'_> {
    fn row(&self, t: usize) -> usize {
        t * self.batch.size() + self.b
    }

    /// The input at step t, counted from 0. (X)
    pub fn input(&mut self, t: usize) -> &mut [f32] {
        let (row, width) = (self.row(t), self.batch.inputs.len() / self.batch.mask.len());
        &mut self.batch.inputs[row * width..][..width]
    }

    /// The target at step t, which now counts. (Y)
    pub fn answer(&mut self, t: usize) -> &mut [f32] {
        let (row, width) = (self.row(t), self.batch.targets.len() / self.batch.mask.len());
        self.batch.mask[row] = 1.0;
        &mut self.batch.targets[row * width..][..width]
    }
}

/// Fair random bits for every element.
pub fn fill_with_bits(rng: &mut impl RngCore, bits: &mut [f32]) {
    for bits in bits.chunks_mut(32) {
        let word = rng.next_u32();
        bits.iter_mut().enumerate().for_each(|(i, bit)| *bit = (word >> i & 1) as f32);
    }
}

/// A vector of `width` fair random bits.
pub fn bits(rng: &mut impl RngCore, width: usize) -> Vec<f32> {
    let mut bits = vec![0.0; width];
    fill_with_bits(rng, &mut bits);
    bits
}

/// True with this probability. With 0 it takes nothing from the stream.
pub fn chosen(probability: f64, rng: &mut impl Rng) -> bool {
    probability > 0.0 && rng.random::<f64>() < probability
}
