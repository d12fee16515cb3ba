//! Copy (Graves et al. 2014, section 4.1): see a sequence of random bits, then the end marker, then write it out.
//!
//!     step            0  1  2  3  4  5  6        length 3, so T = 2 * 3 + 1
//!     input   data    1  0  1  .  .  .  .
//!             ...     0  1  1  .  .  .  .        `width` channels of data
//!             end     .  .  .  1  .  .  .        one channel for the end marker
//!     target  data    .  .  .  .  1  0  1
//!             ...     .  .  .  .  0  1  1
//!     mask            .  .  .  .  1  1  1        only these steps count

use super::batch::fill_with_bits;
use super::{Axis, Channels, Column, Generator, MOST, Point, Varying};
use crate::limits::in_range;
use anyhow::Result;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Sizes of the copy task. Training lengths are uniform in `min_length..=max_length`, both ends included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Copy {
    pub width: usize,
    pub min_length: usize,
    pub max_length: usize,
    pub mixed_lengths: bool,
}

impl Default for Copy {
    fn default() -> Self {
        Copy { width: 8, min_length: 1, max_length: 20, mixed_lengths: true }
    }
}

impl Generator for Copy {
    fn inputs(&self) -> Vec<Channels> {
        vec![Channels::new("data", self.width), Channels::new("end", 1)]
    }

    fn outputs(&self) -> Vec<Channels> {
        vec![Channels::new("data", self.width)]
    }

    fn axes(&self) -> Vec<Varying> {
        let training = self.min_length..=self.max_length;
        vec![Varying { axis: Axis::Length, least: 1, training, evaluation: vec![20, 120], sample: 5 }]
    }

    fn mixed_lengths(&self) -> bool {
        self.mixed_lengths
    }

    fn validate(&self) -> Result<()> {
        in_range("task.width", self.width, 1, 4096)?;
        in_range("task.min_length", self.min_length, 1, MOST)?;
        in_range("task.max_length", self.max_length, self.min_length, MOST)
    }

    fn steps(&self, point: &Point) -> usize {
        2 * point.at(Axis::Length) + 1
    }

    fn draw(&self, point: &Point, _training: bool, rng: &mut ChaCha8Rng, column: &mut Column) {
        let length = point.at(Axis::Length);
        let mut data = vec![0.0; self.width];
        for t in 0..length {
            fill_with_bits(rng, &mut data);
            column.input(t)[..self.width].copy_from_slice(&data);
            column.answer(length + 1 + t).copy_from_slice(&data);
        }
        column.input(length)[self.width] = 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::Copy;
    use crate::tasks::Task;
    use crate::tasks::properties::{Drawn, assert_answers_follow, assert_uniform};

    fn length(drawn: &Drawn) -> usize {
        drawn.input.iter().position(|input| input[8] == 1.0).expect("an end marker")
    }

    #[test]
    fn the_answer_is_what_stood_before_the_end_marker_and_nothing_comes_after_it() {
        assert_answers_follow(&Task::Copy(Copy::default()), |drawn| {
            let length = length(drawn);
            assert!(drawn.input[..length].iter().all(|input| input[8] == 0.0));
            assert!(
                drawn.input[length][..8].iter().chain(drawn.input[length + 1..].iter().flatten()).all(|&x| x == 0.0)
            );
            drawn.input[..length].iter().map(|input| input[..8].to_vec()).collect()
        });
    }

    #[test]
    fn both_ends_of_the_length_range_are_drawn() {
        assert_uniform(&Task::Copy(Copy::default()), 1..=20, length);
    }
}
