//! Sums of what sequences cost and of what is wrong in them.

use super::figures::{Figure, Figures};
use crate::simd::{self, Arch, Float, Level, Work};
use crate::tasks::{Batch, Loss, Scoring, optimum};
use serde::{Deserialize, Serialize};
use std::f64::consts::LN_2;
use std::ops::Range;

/// Sums over sequences.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    pub sequences: u64,
    /// Over the masked outputs: sigmoid cross-entropy in nats, or the mean squared error of each sequence.
    pub loss: f64,
    /// Masked outputs on the wrong side of 0.5, an end marker that is counted apart not among them.
    pub wrong_bits: u64,
    /// Sequences without a wrong bit.
    pub exact: u64,
    /// Masked outputs, each channel of each step.
    pub values: u64,
    /// What the task's scoring adds: wrong markers, wrong bits by position, or nats of the optimum.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<f64>,
}

impl Totals {
    /// Adds a batch with its logits (T, B, Y).
    pub fn add(&mut self, scoring: Scoring, logits: &[f32], batch: &Batch) {
        let sequences = 0..batch.size();
        simd::run(Level::best(), Adding { totals: self, scoring, logits, batch, sequences });
    }

    /// Those of each sequence of a batch.
    pub fn of_each(scoring: Scoring, logits: &[f32], batch: &Batch) -> Vec<Totals> {
        let of_one = |b: usize| {
            let mut totals = Totals::default();
            let sequences = b..b + 1;
            simd::run(Level::best(), Adding { totals: &mut totals, scoring, logits, batch, sequences });
            totals
        };
        (0..batch.size()).map(of_one).collect()
    }

    fn more(&mut self, index: usize) -> &mut f64 {
        self.more.resize(self.more.len().max(index + 1), 0.0);
        &mut self.more[index]
    }

    /// As a row of numbers that ranks can add up.
    pub fn to_row(&self) -> Vec<f64> {
        let counts = [self.sequences, self.wrong_bits, self.exact, self.values].map(|count| count as f64);
        counts.into_iter().chain([self.loss]).chain(self.more.iter().copied()).collect()
    }

    /// What `to_row` made.
    pub fn from_row(row: &[f64]) -> Totals {
        let [sequences, wrong_bits, exact, values, loss, more @ ..] = row else { return Totals::default() };
        let [sequences, wrong_bits, exact, values] = [sequences, wrong_bits, exact, values].map(|count| *count as u64);
        Totals { sequences, loss: *loss, wrong_bits, exact, values, more: more.to_vec() }
    }

    /// The means over sequences, and how many were exact.
    pub fn figures(&self, scoring: Scoring) -> Figures {
        let mean = |sum: f64| sum / self.sequences as f64;
        let first = || Figure::Mean(mean(self.more.first().copied().unwrap_or(0.0)));
        if scoring == Scoring::Squares {
            return Figures(vec![("squared_error", Figure::Mean(mean(self.loss)))]);
        }
        let mut figures = vec![
            ("loss_bits", Figure::Mean(mean(self.loss) / LN_2)),
            ("bit_errors", Figure::Mean(mean(self.wrong_bits as f64))),
            ("exact", Figure::Count(self.exact)),
        ];
        match scoring {
            Scoring::Bits | Scoring::Squares => {}
            Scoring::BitsAndMarker => figures.push(("marker_errors", first())),
            Scoring::BitsByPosition => {
                figures.push(("position_errors", Figure::List(self.more.iter().map(|sum| mean(*sum)).collect())));
            }
            Scoring::BitsAndOptimum { .. } => {
                let bits = mean(self.more.first().copied().unwrap_or(0.0)) / LN_2;
                figures.push(("optimum_bits", Figure::Mean(bits)));
            }
        }
        Figures(figures)
    }
}

/// `Totals::add`, of some of the sequences.
struct Adding<'a> {
    totals: &'a mut Totals,
    scoring: Scoring,
    logits: &'a [f32],
    batch: &'a Batch,
    sequences: Range<usize>,
}

impl Work for Adding<'_> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Adding { totals, scoring, logits, batch, sequences } = self;
        let size = batch.size();
        let width = batch.targets.len() / batch.mask.len().max(1);
        totals.sequences += sequences.len() as u64;
        for b in sequences {
            let answers = (b..batch.mask.len()).step_by(size).filter(|&row| batch.mask[row] > 0.0);
            let (mut wrong, mut squares, mut values) = (0, 0.0, 0);
            for (position, row) in answers.enumerate() {
                let outputs = row * width..(row + 1) * width;
                let (logits, targets) = (&logits[outputs.clone()], &batch.targets[outputs]);
                values += width;
                if batch.loss == Loss::Squared {
                    let pairs = logits.iter().zip(targets);
                    squares += pairs.map(|(output, target)| (*output as f64 - *target as f64).powi(2)).sum::<f64>();
                    continue;
                }
                totals.loss += cross_entropy::<A>(logits, targets);
                let miss = |(logit, target): (&f32, &f32)| (*logit > 0.0) != (*target > 0.5);
                let misses = logits.iter().zip(targets).map(miss).filter(|miss| *miss).count() as u64;
                let marker = match scoring {
                    Scoring::BitsAndMarker => logits.iter().zip(targets).next_back().is_some_and(miss) as u64,
                    _ => 0,
                };
                wrong += misses;
                totals.wrong_bits += misses - marker;
                match scoring {
                    Scoring::BitsAndMarker => *totals.more(0) += marker as f64,
                    Scoring::BitsByPosition => *totals.more(position) += misses as f64,
                    _ => {}
                }
            }
            totals.loss += squares / values.max(1) as f64;
            totals.values += values as u64;
            totals.exact += (wrong == 0) as u64;
            if let Scoring::BitsAndOptimum { context } = scoring {
                *totals.more(0) += optimum(batch, b, context);
            }
        }
    }
}

/// The sum of -log sigmoid(+-logit), from the logits: max(z, 0) - z y + log(1 + exp(-|z|)), one logarithm for the
/// product of many 1 + exp(-|z|), each at most 2. In nats, right to 1e-7 of it and 1e-16 an output.
#[inline(always)]
fn cross_entropy<A: Arch>(logits: &[f32], targets: &[f32]) -> f64 {
    const TOGETHER: usize = 8;
    let mut loss = 0.0;
    for (logits, targets) in logits.chunks(64 * TOGETHER).zip(targets.chunks(64 * TOGETHER)) {
        let (mut linear, mut product) = ([0.0_f64; TOGETHER], [1.0_f64; TOGETHER]);
        for (logits, targets) in logits.chunks(TOGETHER).zip(targets.chunks(TOGETHER)) {
            for (((&z, &y), linear), product) in logits.iter().zip(targets).zip(&mut linear).zip(&mut product) {
                *linear += z.max(0.0) as f64 - z as f64 * y as f64;
                *product *= 1.0 + Float::exp::<A>(-z.abs()) as f64;
            }
        }
        loss += linear.iter().sum::<f64>() + product.iter().product::<f64>().ln();
    }
    loss
}

impl std::ops::AddAssign<&Totals> for Totals {
    fn add_assign(&mut self, other: &Totals) {
        self.sequences += other.sequences;
        self.loss += other.loss;
        self.wrong_bits += other.wrong_bits;
        self.exact += other.exact;
        self.values += other.values;
        for (index, sum) in other.more.iter().enumerate() {
            *self.more(index) += sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T 2, B 2, Y 1; step 0 is masked out.
    fn batch() -> Batch {
        let (targets, mask) = (vec![1.0, 1.0, 1.0, 0.0], vec![0.0, 0.0, 1.0, 1.0]);
        Batch { steps: 2, lengths: vec![2, 2], targets, mask, ..Batch::default() }
    }

    #[test]
    fn costs_and_errors_count_masked_outputs_only() {
        // Sequence 0: logit 0 on target 1, one bit. Sequence 1: a sure and right answer.
        let mut totals = Totals::default();
        totals.add(Scoring::Bits, &[-9.0, -9.0, 0.0, -1000.0], &batch());
        assert_eq!(totals, Totals { sequences: 2, loss: LN_2, wrong_bits: 1, exact: 1, values: 2, more: vec![] });
        let json = serde_json::to_string(&totals.figures(Scoring::Bits)).unwrap();
        assert_eq!(json, r#"{"loss_bits":0.5,"bit_errors":0.5,"exact":1}"#);
    }

    #[test]
    fn the_cross_entropy_of_many_outputs_is_the_sum_of_theirs() {
        let count = 1000; // in more than one part, and not a whole number of them
        let logits: Vec<f32> = (0..count).map(|i| 40.0 * (1.3 * i as f32).sin()).collect();
        let targets: Vec<f32> = (0..count).map(|i| (i % 2) as f32).collect();
        let by_hand = |z: f64, y: f64| z.max(0.0) - z * y + (-z.abs()).exp().ln_1p();
        let expected: f64 = logits.iter().zip(&targets).map(|(&z, &y)| by_hand(z as f64, y as f64)).sum();
        let sure = [30.0_f32, -30.0]; // and right: 1e-13 each
        assert!((cross_entropy::<simd::Plain>(&logits, &targets) / expected - 1.0).abs() < 1e-7);
        assert!((cross_entropy::<simd::Plain>(&sure, &[1.0, 0.0]) / (2.0 * (-30.0_f64).exp()) - 1.0).abs() < 0.01);
        assert!(cross_entropy::<simd::Plain>(&[f32::NAN], &[1.0]).is_nan());
    }

    #[test]
    fn squared_errors_are_means_over_the_values_of_a_sequence() {
        let batch = Batch { loss: Loss::Squared, mask: vec![1.0; 4], ..batch() };
        let mut totals = Totals::default();
        // errors 1 and 2 in sequence 0: mean 2.5; errors 0 and 1 in sequence 1: mean 0.5
        totals.add(Scoring::Squares, &[2.0, 1.0, 3.0, -1.0], &batch);
        assert_eq!(serde_json::to_string(&totals.figures(Scoring::Squares)).unwrap(), r#"{"squared_error":1.5}"#);
    }

    #[test]
    fn an_end_marker_is_counted_apart_from_the_bits_but_spoils_an_exact_sequence() {
        // one sequence, T 2, Y 2, the second channel the marker: one wrong bit and one wrong marker; then a wrong
        // marker
        let one = Batch { steps: 2, lengths: vec![2], targets: vec![0.0; 4], mask: vec![1.0; 2], ..Batch::default() };
        let mut totals = Totals::default();
        totals.add(Scoring::BitsAndMarker, &[1.0, -1.0, -1.0, 1.0], &one);
        totals.add(Scoring::BitsAndMarker, &[-1.0, -1.0, -1.0, 1.0], &one);
        assert_eq!((totals.wrong_bits, totals.exact, &totals.more[..]), (1, 0, &[2.0][..]));
    }

    #[test]
    fn errors_by_position_add_up_to_the_wrong_bits() {
        // T 3, Y 2; the first step is no answer. Position 0: one wrong; position 1: two.
        let (targets, mask) = (vec![0.0; 6], vec![0.0, 1.0, 1.0]);
        let one = Batch { steps: 3, lengths: vec![3], targets, mask, ..Batch::default() };
        let mut totals = Totals::default();
        totals.add(Scoring::BitsByPosition, &[9.0, 9.0, 1.0, -1.0, 1.0, 1.0], &one);
        let again = totals.clone();
        totals += &again;
        assert_eq!((totals.wrong_bits, &totals.more[..]), (6, &[2.0, 4.0][..]));
        let json = serde_json::to_value(totals.figures(Scoring::BitsByPosition)).unwrap();
        assert_eq!(json["position_errors"], serde_json::json!([1.0, 2.0]));
    }
}
