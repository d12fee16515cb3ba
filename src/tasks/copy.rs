//! Copy (Graves et al. 2014, section 4.1): see a sequence of random bits, then the end marker, then write it out.
//!
//!     step            0  1  2  3  4  5  6        length 3, so T = 2 * 3 + 1
//!     input   bit 0   1  0  1  .  .  .  .
//!             ...     0  1  1  .  .  .  .        `width` channels of data
//!             end     .  .  .  1  .  .  .        one channel for the end marker
//!     target  bit 0   .  .  .  .  1  0  1
//!             ...     .  .  .  .  0  1  1
//!     mask            .  .  .  .  1  1  1        only these steps count

use super::Batch;
use crate::limits::check;
use anyhow::Result;
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Sizes of the copy task. Training lengths are uniform in `min_length..=max_length`, both ends included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Copy {
    pub width: usize,
    pub min_length: usize,
    pub max_length: usize,
}

impl Default for Copy {
    fn default() -> Self {
        Copy { width: 8, min_length: 1, max_length: 20 }
    }
}

impl Copy {
    pub fn input_width(&self) -> usize {
        self.width + 1
    }

    pub fn output_width(&self) -> usize {
        self.width
    }

    /// T for a sequence of `length` items.
    pub fn steps(length: usize) -> usize {
        2 * length + 1
    }

    pub fn validate(&self) -> Result<()> {
        check("task.width", self.width, 1, 4096)?;
        check("task.min_length", self.min_length, 1, 1_000_000)?;
        check("task.max_length", self.max_length, self.min_length, 1_000_000)
    }

    /// Writes one sequence into column `b` of a batch of zeros.
    pub fn draw(&self, rng: &mut impl Rng, length: usize, b: usize, batch: &mut Batch) {
        let size = batch.size();
        let (x, y) = (self.input_width(), self.output_width());
        for t in 0..length {
            let (seen, wanted) = (t * size + b, (length + 1 + t) * size + b);
            let mut bits = 0;
            for channel in 0..self.width {
                if channel % 32 == 0 {
                    bits = rng.next_u32();
                }
                let bit = (bits >> (channel % 32) & 1) as f32;
                batch.inputs[seen * x + channel] = bit;
                batch.targets[wanted * y + channel] = bit;
            }
            batch.mask[wanted] = 1.0;
        }
        batch.inputs[(length * size + b) * x + self.width] = 1.0;
    }
}

#[cfg(test)]
mod tests {
    use crate::tasks::{Point, Task};

    fn task() -> Task {
        Task::Copy(super::Copy { width: 8, min_length: 1, max_length: 20 })
    }

    #[test]
    fn the_target_is_the_input_after_the_end_marker_and_the_mask_covers_it() {
        for step in 0..1000 {
            let batch = task().training_batch(7, step, 2);
            let length = (batch.steps - 1) / 2;
            for t in 0..batch.steps {
                for b in 0..2 {
                    let row = t * 2 + b;
                    let input = &batch.inputs[row * 9..(row + 1) * 9];
                    let answering = t > length;
                    assert_eq!(batch.mask[row], answering as u8 as f32);
                    assert_eq!(input[8], (t == length) as u8 as f32, "the end marker stands at step `length` alone");
                    if answering {
                        let seen = (t - length - 1) * 2 + b;
                        assert_eq!(batch.targets[row * 8..(row + 1) * 8], batch.inputs[seen * 9..seen * 9 + 8]);
                    }
                    if t >= length {
                        assert_eq!(input[..8], [0.0; 8], "no data once the marker has come");
                    }
                }
            }
        }
    }

    #[test]
    fn both_ends_of_the_length_range_are_drawn_and_every_bit_is_fair() {
        let mut lengths = [0; 21];
        let (mut ones, mut bits) = (0.0, 0.0);
        for step in 0..4000 {
            let batch = task().training_batch(1, step, 1);
            lengths[(batch.steps - 1) / 2] += 1;
            ones += batch.targets.iter().map(|&bit| bit as f64).sum::<f64>();
            bits += (batch.mask.iter().sum::<f32>() * 8.0) as f64;
        }
        assert_eq!(lengths[0], 0);
        // 4,000 draws over 20 lengths: 200 each, standard deviation 13.8
        assert!(lengths[1..].iter().all(|&count| (140..260).contains(&count)), "{lengths:?}");
        assert!((ones / bits - 0.5).abs() < 0.01, "{}", ones / bits);
    }

    #[test]
    fn a_batch_depends_on_seed_and_step_alone() {
        let batch = task().training_batch(3, 17, 4);
        task().training_batch(3, 16, 4);
        assert_eq!(batch, task().training_batch(3, 17, 4));
        assert_ne!(batch, task().training_batch(4, 17, 4));
        assert_ne!(batch, task().training_batch(3, 18, 4));
    }

    #[test]
    fn evaluation_sequences_do_not_depend_on_how_they_are_batched() {
        let point = Point { length: 5 };
        let both = task().evaluation_batch(1, &point, 0, 2);
        let second = task().evaluation_batch(1, &point, 1, 1);
        let column: Vec<f32> = both.inputs.chunks(9).skip(1).step_by(2).flatten().copied().collect();
        assert_eq!(column, second.inputs);
    }
}
