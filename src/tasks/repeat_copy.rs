//! Repeat copy (Graves et al. 2014, section 4.2): see a sequence of random bits and a number, then write the sequence
//! that many times, then an end marker.
//!
//!     step            0  1  2  3  4  5  6  7     length 2, repeats 2, so T = 2 + 1 + 2 * 2 + 1
//!     input   data    1  0  .  .  .  .  .  .
//!             ...     0  1  .  .  .  .  .  .     `width` channels of data
//!             end     .  .  1  .  .  .  .  .     one channel for the end marker
//!             repeats .  .  r  .  .  .  .  .     one channel for the number of repeats, normalised
//!     target  data    .  .  .  1  0  1  0  .
//!             ...     .  .  .  0  1  0  1  .
//!             end     .  .  .  .  .  .  .  1     one channel for the end marker
//!     mask            .  .  .  1  1  1  1  1     only these steps count
//!
//! The paper has the number alone. It is normalised to mean 0 and variance 1 over the training range, so the number in
//! the middle of an odd range, or the only one, is 0 and could not be seen: the end marker beside it can.
//!
//! A number beyond the training range is a value that no training showed. With `count` `pulses` the same number is told
//! one by one after the end marker, so that every input of a longer sequence is one that training has shown:
//!
//!     step            0  1  2  3  4  5  6  7  8  9     length 2, repeats 2, so T = 2 + 1 + 2 + 2 * 2 + 1
//!     input   data    1  0  .  .  .  .  .  .  .  .
//!             ...     0  1  .  .  .  .  .  .  .  .
//!             end     .  .  1  .  .  .  .  .  .  .
//!             repeats .  .  .  1  1  .  .  .  .  .     a pulse for each repeat; target and mask as above

use super::batch::{bits, chosen};
use super::{Axis, Channels, Column, Generator, MOST, Point, Scoring, Varying};
use crate::limits::in_range;
use anyhow::Result;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Sizes of the repeat copy task. Training lengths and repeats are uniform in their ranges, both ends included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepeatCopy {
    pub width: usize,
    pub min_length: usize,
    pub max_length: usize,
    pub min_repeats: usize,
    pub max_repeats: usize,
    pub count: Count,
    /// The share of training sequences whose vectors are alike (see `make_alike`). Evaluation draws all bits uniformly.
    pub alike: f64,
    pub mixed_lengths: bool,
}

/// How the number of repeats is told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// As one value beside the end marker, as in the paper.
    Number,
    /// As a pulse for each repeat, step by step after the end marker.
    Pulses,
}

impl Default for RepeatCopy {
    fn default() -> Self {
        RepeatCopy {
            width: 8,
            min_length: 1,
            max_length: 10,
            min_repeats: 1,
            max_repeats: 10,
            count: Count::Number,
            alike: 0.0,
            mixed_lengths: true,
        }
    }
}

impl RepeatCopy {
    /// The steps before the first one that counts: the data, the end marker, and perhaps pulses.
    fn shown(&self, length: usize, repeats: usize) -> usize {
        length + 1 + if self.count == Count::Pulses { repeats } else { 0 }
    }

    /// Of mean 0 and variance 1 for repeats uniform over the training range; 0 where there is one value only.
    fn normalised(&self, repeats: usize) -> f32 {
        let (low, high) = (self.min_repeats as f64, self.max_repeats as f64);
        let values = high - low + 1.0;
        let deviation = ((values * values - 1.0) / 12.0).sqrt(); // of a discrete uniform distribution
        ((repeats as f64 - (low + high) / 2.0) / if deviation > 0.0 { deviation } else { 1.0 }) as f32
    }
}

impl Generator for RepeatCopy {
    fn inputs(&self) -> Vec<Channels> {
        vec![Channels::new("data", self.width), Channels::new("end", 1), Channels::new("repeats", 1)]
    }

    fn outputs(&self) -> Vec<Channels> {
        vec![Channels::new("data", self.width), Channels::new("end", 1)]
    }

    fn axes(&self) -> Vec<Varying> {
        let (lengths, repeats) = (self.min_length..=self.max_length, self.min_repeats..=self.max_repeats);
        let evaluation = vec![10, 20];
        vec![
            Varying { axis: Axis::Length, least: 1, training: lengths, evaluation: evaluation.clone(), sample: 3 },
            Varying { axis: Axis::Repeats, least: 1, training: repeats, evaluation, sample: 3 },
        ]
    }

    fn mixed_lengths(&self) -> bool {
        self.mixed_lengths
    }

    fn scoring(&self) -> Scoring {
        Scoring::BitsAndMarker
    }

    fn validate(&self) -> Result<()> {
        in_range("task.width", self.width, 1, 4096)?;
        in_range("task.min_length", self.min_length, 1, MOST)?;
        in_range("task.max_length", self.max_length, self.min_length, MOST)?;
        in_range("task.min_repeats", self.min_repeats, 1, MOST)?;
        in_range("task.max_repeats", self.max_repeats, self.min_repeats, MOST)?;
        in_range("task.alike", self.alike, 0.0, 1.0)
    }

    fn steps(&self, point: &Point) -> usize {
        let (length, repeats) = (point.at(Axis::Length), point.at(Axis::Repeats));
        self.shown(length, repeats) + length * repeats + 1
    }

    fn draw(&self, point: &Point, training: bool, rng: &mut ChaCha8Rng, column: &mut Column) {
        let (length, repeats, width) = (point.at(Axis::Length), point.at(Axis::Repeats), self.width);
        let shown = self.shown(length, repeats);
        let mut vectors: Vec<Vec<f32>> = (0..length).map(|_| bits(rng, width)).collect();
        if training && chosen(self.alike, rng) {
            make_alike(&mut vectors, rng);
        }
        for (t, data) in vectors.iter().enumerate() {
            column.input(t)[..width].copy_from_slice(data);
            for repeat in 0..repeats {
                column.answer(shown + repeat * length + t)[..width].copy_from_slice(data);
            }
        }
        column.input(length)[width] = 1.0;
        match self.count {
            Count::Number => column.input(length)[width + 1] = self.normalised(repeats),
            Count::Pulses => (length + 1..shown).for_each(|t| column.input(t)[width + 1] = 1.0),
        }
        column.answer(shown + length * repeats)[width] = 1.0;
    }
}

/// Makes of the vectors after the first half equal to one before them, or different from it in one bit, and draws a
/// quarter of them, and three quarters of first ones, with few ones (a bit is 1 once in ten). Vectors that a head
/// confuses when it looks up by content are rare among uniform bits.
fn make_alike(vectors: &mut [Vec<f32>], rng: &mut impl Rng) {
    for t in 0..vectors.len() {
        let kind = rng.random::<f64>();
        if kind < 0.5 && t > 0 {
            vectors[t] = vectors[rng.random_range(0..t)].clone();
            if rng.random::<f64>() < 0.5 {
                let bit = rng.random_range(0..vectors[t].len());
                vectors[t][bit] = 1.0 - vectors[t][bit];
            }
        } else if kind < 0.75 {
            vectors[t].fill_with(|| (rng.random::<f64>() < 0.1) as u8 as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Count, RepeatCopy};
    use crate::tasks::properties::{Drawn, assert_answers_follow, assert_uniform};
    use crate::tasks::{Axis, Point, Source, Task};

    fn length(drawn: &Drawn) -> usize {
        drawn.input.iter().position(|input| input[8] == 1.0).expect("an end marker")
    }

    /// Of 1 to 10, mean 5.5, variance 8.25.
    fn repeats(drawn: &Drawn) -> usize {
        (drawn.input[length(drawn)][9] * 8.25f32.sqrt() + 5.5).round() as usize
    }

    #[test]
    fn the_answer_is_the_sequence_as_often_as_the_number_says_and_then_the_marker() {
        assert_answers_follow(&Task::RepeatCopy(RepeatCopy::default()), |drawn| {
            let data = &drawn.input[..length(drawn)];
            assert!(drawn.input[data.len() + 1..].iter().flatten().all(|&value| value == 0.0));
            let step = |i: usize| [&data[i % data.len()][..8], &[0.0]].concat();
            let marker = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0].to_vec();
            (0..data.len() * repeats(drawn)).map(step).chain([marker]).collect()
        });
    }

    #[test]
    fn pulses_tell_the_number_one_by_one_after_the_end_marker() {
        let task = RepeatCopy { count: Count::Pulses, alike: 1.0, ..RepeatCopy::default() };
        assert_answers_follow(&Task::RepeatCopy(task), |drawn| {
            let (data, rest) = drawn.input.split_at(length(drawn));
            let pulses = rest[1..].iter().take_while(|input| input[9] == 1.0).count();
            assert!(rest[0][8] == 1.0 && rest[0][9] == 0.0 && (1..=10).contains(&pulses));
            let pulse = |input: &Vec<f32>| input[..9].iter().all(|&value| value == 0.0);
            assert!(rest[1..=pulses].iter().all(pulse), "nothing but the pulse");
            assert!(rest[1 + pulses..].iter().flatten().all(|&value| value == 0.0), "then silence");
            let step = |i: usize| [&data[i % data.len()][..8], &[0.0]].concat();
            let marker = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0].to_vec();
            (0..data.len() * pulses).map(step).chain([marker]).collect()
        });
    }

    #[test]
    fn both_ends_of_lengths_and_repeats_are_drawn() {
        let task = Task::RepeatCopy(RepeatCopy::default());
        assert_uniform(&task, 1..=10, length);
        assert_uniform(&task, 1..=10, repeats);
    }

    #[test]
    fn the_number_has_mean_0_and_variance_1_over_its_range_and_a_single_one_is_0() {
        let task = RepeatCopy { min_repeats: 3, max_repeats: 9, ..RepeatCopy::default() };
        let values: Vec<f32> = (3..=9).map(|repeats| task.normalised(repeats)).collect();
        assert!(values.iter().sum::<f32>().abs() < 1e-6, "{values:?}");
        assert!((values.iter().map(|value| value * value).sum::<f32>() / 7.0 - 1.0).abs() < 1e-6, "{values:?}");
        assert_eq!(RepeatCopy { max_repeats: 3, ..task }.normalised(3), 0.0);
    }

    /// Of sequences of 8 vectors: the share of ones, that of ones in first vectors, and that of neighbours that differ
    /// in at most one bit.
    fn likeness(alike: f64, training: bool) -> [f64; 3] {
        let task = RepeatCopy { alike, min_length: 8, max_length: 8, max_repeats: 2, ..RepeatCopy::default() };
        let mut source = Source::open(&Task::RepeatCopy(task)).unwrap();
        let point = Point::new([(Axis::Length, 8), (Axis::Repeats, 1)]);
        let batch =
            if training { source.training_batch(1, 0, 500, 1.0) } else { source.evaluation_batch(1, &point, 0, 500) };
        let batch = batch.unwrap();
        let vector = |b: usize, t: usize| &batch.inputs[(t * 500 + b) * 10..][..8];
        let ones = |t: usize| (0..500).map(|b| vector(b, t).iter().sum::<f32>() as f64).sum::<f64>() / 4000.0;
        let differing = |b: usize, t: usize| vector(b, t).iter().zip(vector(b, t - 1)).filter(|(a, b)| a != b).count();
        let near = |t: usize| (0..500).filter(|&b| differing(b, t) <= 1).count() as f64 / 500.0;
        [(0..8).map(ones).sum::<f64>() / 8.0, ones(0), (1..8).map(near).sum::<f64>() / 7.0]
    }

    #[test]
    fn a_share_of_training_sequences_has_vectors_alike_and_evaluation_none() {
        let close = |values: [f64; 3], expected: [f64; 3]| {
            let off = values.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(off < 0.02, "{values:?}, expected {expected:?}");
        };
        let uniform = [0.5, 0.5, 9.0 / 256.0]; // 9 of 256 vectors differ from one in at most a bit
        close(likeness(0.0, true), uniform);
        assert_eq!(likeness(1.0, false), likeness(0.0, false));
        let alike = likeness(1.0, true);
        assert!((alike[1] - (0.75 * 0.1 + 0.25 * 0.5)).abs() < 0.02, "{alike:?}"); // of first vectors three in four have few ones
        assert!(alike[0] < 0.4 && alike[2] > 0.25, "{alike:?}");
        close(likeness(0.5, true), std::array::from_fn(|i| (uniform[i] + alike[i]) / 2.0));
    }
}
