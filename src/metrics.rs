//! What is measured: cost in bits and wrong bits per sequence, as the paper plots them.

use crate::tasks::Batch;
use serde::{Deserialize, Serialize};

/// Sums over sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    pub sequences: u64,
    /// Sigmoid cross-entropy over the masked outputs, in nats.
    pub nats: f64,
    /// Masked outputs on the wrong side of 0.5.
    pub wrong_bits: u64,
    /// Sequences without a wrong bit.
    pub exact: u64,
}

impl Totals {
    /// Adds a batch with its logits (T, B, Y).
    pub fn add(&mut self, logits: &[f32], batch: &Batch) {
        let size = batch.size();
        let width = batch.targets.len() / batch.mask.len().max(1);
        for b in 0..size {
            let mut wrong = 0;
            for row in (b..batch.mask.len()).step_by(size).filter(|&row| batch.mask[row] > 0.0) {
                let outputs = row * width..(row + 1) * width;
                for (&logit, &target) in logits[outputs.clone()].iter().zip(&batch.targets[outputs]) {
                    let logit = logit as f64;
                    // -log sigmoid(+-logit), from the logit: max(z, 0) - z y + log(1 + exp(-|z|))
                    self.nats += logit.max(0.0) - logit * target as f64 + (-logit.abs()).exp().ln_1p();
                    wrong += ((logit > 0.0) != (target > 0.5)) as u64;
                }
            }
            self.wrong_bits += wrong;
            self.exact += (wrong == 0) as u64;
        }
        self.sequences += size as u64;
    }

    /// Mean cost of a sequence in bits.
    pub fn loss_bits(&self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.sequences as f64
    }

    /// Mean wrong bits of a sequence.
    pub fn bit_errors(&self) -> f64 {
        self.wrong_bits as f64 / self.sequences as f64
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        self.sequences += other.sequences;
        self.nats += other.nats;
        self.wrong_bits += other.wrong_bits;
        self.exact += other.exact;
    }
}

/// One line of metrics.jsonl: means over the updates since the last report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub step: u64,
    pub sequences: u64,
    pub seconds: f64,
    pub loss_bits: f64,
    pub bit_errors: f64,
    pub grad_norm: f64,
    pub learning_rate: f64,
    pub sequences_per_second: f64,
}

impl Report {
    pub fn scalars(&self) -> [(&'static str, f64); 5] {
        [
            ("loss_bits", self.loss_bits),
            ("bit_errors", self.bit_errors),
            ("grad_norm", self.grad_norm),
            ("learning_rate", self.learning_rate),
            ("sequences_per_second", self.sequences_per_second),
        ]
    }
}

/// The result of an evaluation at one point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub length: usize,
    pub sequences: u64,
    pub loss_bits: f64,
    pub bit_errors: f64,
    /// Sequences without a wrong bit.
    pub exact: u64,
}

impl Score {
    pub fn scalars(&self) -> [(&'static str, f64); 2] {
        [("loss_bits", self.loss_bits), ("bit_errors", self.bit_errors)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_and_errors_count_masked_outputs_only() {
        // T 2, B 2, Y 1; step 0 is masked out. Sequence 0: logit 0 on target 1, one bit. Sequence 1: a sure and right answer.
        let batch = Batch {
            steps: 2,
            lengths: vec![2, 2],
            targets: vec![1.0, 1.0, 1.0, 0.0],
            mask: vec![0.0, 0.0, 1.0, 1.0],
            ..Batch::default()
        };
        let mut totals = Totals::default();
        totals.add(&[-9.0, -9.0, 0.0, -1000.0], &batch);
        assert_eq!(totals, Totals { sequences: 2, nats: std::f64::consts::LN_2, wrong_bits: 1, exact: 1 });
        assert_eq!((totals.loss_bits(), totals.bit_errors()), (0.5, 0.5));
    }
}
