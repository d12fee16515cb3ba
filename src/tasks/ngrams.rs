//! Dynamic n-grams (Graves et al. 2014, section 4.4): predict each next bit of a source that is new in every sequence.
//! The source is a table of 2^(order - 1) probabilities, each Beta(1/2, 1/2): that of a 1 after each context, the
//! `order - 1` bits before.
//!
//!     step            0  1  2  3  4  5 ...       order 3, so T = length - 1 and the first 2 bits are fair coins
//!     input   bit     1  0  0  1  0  1
//!     target  bit     .  0  1  0  1  ...         the next bit of the input
//!     mask            .  1  1  1  1  ...         only where the context is whole
//!
//! At the paper's sizes, 200 bits and order 6, that makes 195 predictions; the paper's cost counts the first five bits
//! too.

use super::{Axis, Batch, Channels, Column, Generator, MOST, Point, Scoring, Varying};
use crate::limits::in_range;
use anyhow::Result;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Sizes of the n-gram task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ngrams {
    /// n: each bit depends on the n - 1 before it.
    pub order: usize,
    /// The bits of a sequence.
    pub length: usize,
}

impl Default for Ngrams {
    fn default() -> Self {
        Ngrams { order: 6, length: 200 }
    }
}

impl Generator for Ngrams {
    fn inputs(&self) -> Vec<Channels> {
        vec![Channels::new("bit", 1)]
    }

    fn outputs(&self) -> Vec<Channels> {
        vec![Channels::new("bit", 1)]
    }

    fn axes(&self) -> Vec<Varying> {
        let training = self.length..=self.length;
        vec![Varying { axis: Axis::Length, least: self.order, training, evaluation: vec![200], sample: 4 * self.order }]
    }

    fn scoring(&self) -> Scoring {
        Scoring::BitsAndOptimum { context: self.order - 1 }
    }

    fn validate(&self) -> Result<()> {
        in_range("task.order", self.order, 2, 21)?;
        in_range("task.length", self.length, self.order, MOST)
    }

    fn steps(&self, point: &Point) -> usize {
        point.at(Axis::Length) - 1
    }

    fn draw(&self, point: &Point, _training: bool, rng: &mut ChaCha8Rng, column: &mut Column) {
        let contexts = 1 << (self.order - 1);
        // the distribution function of Beta(1/2, 1/2) is 2 asin(sqrt(p)) / pi; this is its inverse
        let table: Vec<f64> =
            (0..contexts).map(|_| (std::f64::consts::FRAC_PI_2 * rng.random::<f64>()).sin().powi(2)).collect();
        let mut context = 0;
        for t in 0..point.at(Axis::Length) {
            let known = t + 1 >= self.order;
            let bit = rng.random_bool(if known { table[context] } else { 0.5 });
            if known {
                column.answer(t - 1)[0] = bit as u8 as f32;
            }
            if t + 1 < point.at(Axis::Length) {
                column.input(t)[0] = bit as u8 as f32;
            }
            context = (2 * context + bit as usize) % contexts;
        }
    }
}

/// The cost in nats of the answers of sequence b under the Bayes optimum, which knows the distribution of the tables
/// and no more: after a context seen before n0 zeros and n1 ones, a 1 has probability (n1 + 1/2) / (n0 + n1 + 1).
pub fn optimum(batch: &Batch, b: usize, context: usize) -> f64 {
    let rows = (b..batch.mask.len()).step_by(batch.size());
    let cost = |(row, prediction): (usize, Option<f64>)| {
        prediction.map_or(0.0, |one| -if batch.targets[row] > 0.5 { one } else { 1.0 - one }.ln())
    };
    rows.zip(optimal_predictions(batch, b, context)).map(cost).sum()
}

/// The probability of a 1 at each step of sequence b that counts, under the same optimum.
pub fn optimal_predictions(batch: &Batch, b: usize, context: usize) -> Vec<Option<f64>> {
    let mut seen = vec![[0.0; 2]; 1 << context];
    let mut at = 0;
    let predict = |row: usize| {
        at = (2 * at + batch.inputs[row] as usize) % seen.len();
        let counts: &mut [f64; 2] = &mut seen[at];
        (batch.mask[row] > 0.0).then(|| {
            let one = (counts[1] + 0.5) / (counts[0] + counts[1] + 1.0);
            counts[batch.targets[row] as usize] += 1.0;
            one
        })
    };
    (b..batch.mask.len()).step_by(batch.size()).take(batch.lengths[b]).map(predict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Task;
    use crate::tasks::properties::{Drawn, assert_answers_follow};
    use std::collections::HashMap;
    use std::f64::consts::LN_2;

    fn batch(first: u64, size: usize) -> Batch {
        let point = Point::new([(Axis::Length, 200)]);
        crate::tasks::generator::evaluation_batch(&Ngrams::default(), 1, &point, first, size)
    }

    #[test]
    fn each_answer_is_the_next_input_from_the_fifth_bit_on() {
        // the last answer is the one bit that is never an input
        assert_answers_follow(&Task::Ngrams(Ngrams::default()), |drawn| {
            assert_eq!(drawn.input.len(), 199);
            let next = drawn.input[5..].iter().cloned();
            next.chain([drawn.answers().last().expect("195 of them").clone()]).collect()
        });
    }

    #[test]
    fn tables_are_beta_one_half_one_half_and_new_in_every_sequence() {
        // Of 1,000 bits of order 2, the share of ones among those after a 0 is close to the probability in the table.
        let (task, point) = (Task::Ngrams(Ngrams { order: 2, length: 1000 }), Point::new([(Axis::Length, 1000)]));
        let share = |drawn: Drawn| {
            let after_0 = drawn.input.windows(2).filter(|pair| pair[0] == [0.0]).map(|pair| pair[1][0] as f64);
            let after_0: Vec<f64> = after_0.collect();
            (after_0.len() > 30).then(|| after_0.iter().sum::<f64>() / after_0.len() as f64)
        };
        let shares: Vec<f64> = Drawn::evaluation(&task, &point, 2000).filter_map(share).collect();
        let count = shares.len() as f64;
        assert!(count > 1600.0, "{count}");
        // quartiles of Beta(1/2, 1/2): sin(pi / 8)^2 = 0.1464, 0.5, 0.8536; standard error of a share 0.01
        for (low, high) in [(0.0, 0.1464), (0.1464, 0.5), (0.5, 0.8536), (0.8536, 1.01)] {
            let inside = shares.iter().filter(|share| (low..high).contains(*share)).count() as f64 / count;
            assert!((inside - 0.25).abs() < 0.04, "{inside} between {low} and {high}");
        }
        // variance 1/8; neighbours have nothing in common
        let product = shares.windows(2).map(|pair| (pair[0] - 0.5) * (pair[1] - 0.5)).sum::<f64>() / count;
        assert!(product.abs() < 0.012, "covariance {product} of neighbours, standard error 0.003");
    }

    #[test]
    fn the_first_bits_are_fair_coins() {
        let ones: f32 = Drawn::evaluation(&Task::Ngrams(Ngrams::default()), &Point::new([(Axis::Length, 6)]), 4000)
            .map(|drawn| drawn.input.iter().flatten().sum::<f32>())
            .sum();
        assert!((ones / 20_000.0 - 0.5).abs() < 0.015, "{ones} of 20,000"); // standard deviation 0.0035
    }

    #[test]
    fn the_optimum_counts_each_context_by_itself() {
        for b in 0..3 {
            let batch = batch(0, 3);
            let bits: Vec<u8> = (0..199).map(|t| batch.inputs[t * 3 + b] as u8).collect();
            let bits = [&bits[..], &[batch.targets[198 * 3 + b] as u8]].concat();
            let (mut seen, mut expected) = (HashMap::<&[u8], Vec<u8>>::new(), 0.0);
            for window in bits.windows(6) {
                let before = seen.entry(&window[..5]).or_default();
                let same = before.iter().filter(|&&bit| bit == window[5]).count() as f64;
                expected -= ((same + 0.5) / (before.len() as f64 + 1.0)).ln();
                before.push(window[5]);
            }
            assert!((optimum(&batch, b, 5) - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn the_optimum_of_the_papers_sizes_is_near_its_133_bits_with_the_first_five_counted() {
        let bits: Vec<f64> = (0..1000).map(|index| optimum(&batch(index, 1), 0, 5) / LN_2).collect();
        let mean = bits.iter().sum::<f64>() / 1000.0;
        let variance = bits.iter().map(|bits| (bits - mean).powi(2)).sum::<f64>() / 999.0;
        let error = (variance / 1000.0).sqrt();
        println!("over 1,000 sequences: {mean:.2} bits, standard error {error:.2}; {:.2} with five more", mean + 5.0);
        assert!((mean + 5.0 - 133.0).abs() < 3.0 * error + 0.5, "{mean} +- {error}");
    }
}
