//! Priority sort (Graves et al. 2014, section 4.5): see vectors, each with a priority, then write those of highest
//! priority, the highest first.
//!
//!     step                0     1     2     3     4     5      3 vectors, 2 of them sorted, so T = 3 + 1 + 2
//!     input   data        1     0     1     .     .     .
//!             ...         0     0     1     .     .     .      `width` channels of data
//!             priority  -0.3   0.8   0.5    .     .     .      one channel, uniform in -1 to 1
//!             end         .     .     .     1     .     .      one channel for the end marker
//!     target  data        .     .     .     .     0     1      whole vectors
//!             ...         .     .     .     .     0     1
//!     mask                .     .     .     .     1     1      only these steps count

use super::batch::bits;
use super::{Axis, Channels, Column, Generator, MOST, Point, Scoring, Varying};
use crate::limits::check;
use anyhow::Result;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Sizes of the priority sort task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrioritySort {
    pub width: usize,
    pub vectors: usize,
    /// How many of `vectors` are written. Of another number of vectors it is the same share.
    pub sorted: usize,
}

impl Default for PrioritySort {
    fn default() -> Self {
        PrioritySort { width: 8, vectors: 20, sorted: 16 }
    }
}

impl PrioritySort {
    /// How many of `vectors` vectors are written: the share of the recipe, rounded, and one at least.
    fn written(&self, vectors: usize) -> usize {
        ((vectors * self.sorted + self.vectors / 2) / self.vectors).clamp(1, vectors)
    }
}

impl Generator for PrioritySort {
    fn inputs(&self) -> Vec<Channels> {
        vec![Channels::new("data", self.width), Channels::new("priority", 1), Channels::new("end", 1)]
    }

    fn outputs(&self) -> Vec<Channels> {
        vec![Channels::new("data", self.width)]
    }

    fn axes(&self) -> Vec<Varying> {
        let training = self.vectors..=self.vectors;
        vec![Varying { axis: Axis::Vectors, least: 1, training, evaluation: vec![20], sample: 8 }]
    }

    fn scoring(&self) -> Scoring {
        Scoring::BitsByPosition
    }

    fn validate(&self) -> Result<()> {
        check("task.width", self.width, 1, 4096)?;
        check("task.vectors", self.vectors, 1, MOST)?;
        check("task.sorted", self.sorted, 1, self.vectors)
    }

    fn steps(&self, point: &Point) -> usize {
        let vectors = point.at(Axis::Vectors);
        vectors + 1 + self.written(vectors)
    }

    fn draw(&self, point: &Point, rng: &mut ChaCha8Rng, column: &mut Column) {
        let (vectors, width) = (point.at(Axis::Vectors), self.width);
        let mut all: Vec<(f32, Vec<f32>)> =
            (0..vectors).map(|_| (rng.random_range(-1.0..=1.0), bits(rng, width))).collect();
        for (t, (priority, data)) in all.iter().enumerate() {
            column.input(t)[..width].copy_from_slice(data);
            column.input(t)[width] = *priority;
        }
        column.input(vectors)[width + 1] = 1.0;
        all.sort_by(|a, b| b.0.total_cmp(&a.0)); // stable: of equal priorities the first seen is written first
        for (place, (_, data)) in all.iter().take(self.written(vectors)).enumerate() {
            column.answer(vectors + 1 + place).copy_from_slice(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PrioritySort;
    use crate::tasks::Task;
    use crate::tasks::properties::{Drawn, assert_answers_follow};
    use crate::tasks::{Axis, Point};

    #[test]
    fn the_answer_is_the_16_whole_vectors_of_highest_priority_the_highest_first() {
        assert_answers_follow(&Task::PrioritySort(PrioritySort::default()), |drawn| {
            let seen = &drawn.input[..20];
            assert_eq!(drawn.input[20], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
            assert!(drawn.input[21..].iter().flatten().all(|&value| value == 0.0));
            // by its rank, the number of vectors before it, each vector finds its own place
            let mut answer = vec![vec![]; 20];
            for (i, input) in seen.iter().enumerate() {
                let before = |(j, other): (usize, &Vec<f32>)| other[8] > input[8] || other[8] == input[8] && j < i;
                let rank = seen.iter().enumerate().filter(|&other| before(other)).count();
                answer[rank] = input[..8].to_vec();
            }
            answer.truncate(16);
            answer
        });
    }

    #[test]
    fn priorities_are_uniform_from_minus_1_to_1() {
        let mut counts = [0; 10];
        for drawn in Drawn::training(&Task::PrioritySort(PrioritySort::default()), 1000) {
            for input in &drawn.input[..20] {
                assert!((-1.0..=1.0).contains(&input[8]));
                counts[((input[8] + 1.0) * 5.0).min(9.0) as usize] += 1;
            }
        }
        // 2,000 in each tenth, standard deviation 42
        assert!(counts.iter().all(|count| (1800..2200).contains(count)), "{counts:?}");
    }

    #[test]
    fn of_another_number_of_vectors_the_same_share_is_written_and_one_at_least() {
        let task = PrioritySort::default();
        assert_eq!([1, 2, 8, 10, 20, 40].map(|vectors| task.written(vectors)), [1, 2, 6, 8, 16, 32]);
        let few = PrioritySort { vectors: 20, sorted: 1, ..task };
        assert_eq!([1, 5, 40].map(|vectors| few.written(vectors)), [1, 1, 2]);
        let point = Point::new([(Axis::Vectors, 5)]);
        let drawn = Drawn::evaluation(&Task::PrioritySort(few), &point, 1).next().expect("one");
        assert_eq!((drawn.input.len(), drawn.answers().len()), (7, 1));
    }
}
