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

use super::batch::{bits, chosen};
use super::{Axis, Channels, Column, Generator, MOST, Point, Scoring, Varying};
use crate::limits::in_range;
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
    /// The share of training sequences whose priorities are alike (see `make_alike`). Evaluation draws all uniformly.
    pub alike: f64,
}

impl Default for PrioritySort {
    fn default() -> Self {
        PrioritySort { width: 8, vectors: 20, sorted: 16, alike: 0.0 }
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
        in_range("task.width", self.width, 1, 4096)?;
        in_range("task.vectors", self.vectors, 1, MOST)?;
        in_range("task.sorted", self.sorted, 1, self.vectors)?;
        in_range("task.alike", self.alike, 0.0, 1.0)
    }

    fn steps(&self, point: &Point) -> usize {
        let vectors = point.at(Axis::Vectors);
        vectors + 1 + self.written(vectors)
    }

    fn draw(&self, point: &Point, training: bool, rng: &mut ChaCha8Rng, column: &mut Column) {
        let (count, width) = (point.at(Axis::Vectors), self.width);
        let mut vectors: Vec<(f32, Vec<f32>)> =
            (0..count).map(|_| (rng.random_range(-1.0..=1.0), bits(rng, width))).collect();
        if training && chosen(self.alike, rng) {
            make_alike(&mut vectors, rng);
        }
        for (t, (priority, data)) in vectors.iter().enumerate() {
            column.input(t)[..width].copy_from_slice(data);
            column.input(t)[width] = *priority;
        }
        column.input(count)[width + 1] = 1.0;
        vectors.sort_by(|a, b| b.0.total_cmp(&a.0)); // stable: of equal priorities the first seen is written first
        for (place, (_, data)) in vectors.iter().take(self.written(count)).enumerate() {
            column.answer(count + 1 + place).copy_from_slice(data);
        }
    }
}

/// Makes half of the priorities after the first one before them, moved by up to 0.02 but not beyond 1 or -1. Of 20
/// uniform ones two neighbours in eleven are that near each other; a machine that keeps no account of what it has
/// written, but looks for the next lower priority, confuses them.
fn make_alike(vectors: &mut [(f32, Vec<f32>)], rng: &mut impl Rng) {
    for t in 1..vectors.len() {
        if rng.random::<f64>() < 0.5 {
            let near = vectors[rng.random_range(0..t)].0 + rng.random_range(-0.02..=0.02);
            vectors[t].0 = near.clamp(-1.0, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PrioritySort;
    use crate::tasks::properties::{Drawn, assert_answers_follow, assert_evaluated_alike};
    use crate::tasks::{Axis, Point, Task};

    #[test]
    fn the_answer_is_the_16_whole_vectors_of_highest_priority_the_highest_first() {
        let task = PrioritySort { alike: 0.5, ..PrioritySort::default() };
        assert_answers_follow(&Task::PrioritySort(task), |drawn| {
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

    /// The share of neighbours in the order of the answer whose priorities are within 0.02 of each other.
    fn near(drawn: impl Iterator<Item = Drawn>) -> f64 {
        let mut near = vec![];
        for drawn in drawn {
            let mut priorities: Vec<f32> = drawn.input[..20].iter().map(|input| input[8]).collect();
            assert!(priorities.iter().all(|priority| (-1.0..=1.0).contains(priority)));
            priorities.sort_by(f32::total_cmp);
            near.extend(priorities.windows(2).map(|pair| (pair[1] - pair[0] <= 0.02) as u8 as f64));
        }
        near.iter().sum::<f64>() / near.len() as f64
    }

    #[test]
    fn a_share_of_training_sequences_has_priorities_alike_and_evaluation_none() {
        let with = |alike| Task::PrioritySort(PrioritySort { alike, ..PrioritySort::default() });
        // a gap between neighbours of 20 in -1 to 1 is wider than 0.02 with probability 0.99^20 = 0.82
        let uniform = near(Drawn::training(&with(0.0), 1000));
        assert!((uniform - 0.18).abs() < 0.02, "{uniform}");
        let alike = near(Drawn::training(&with(1.0), 1000));
        assert!((alike - 0.57).abs() < 0.02, "{alike}"); // simulated: 0.567
        let half = near(Drawn::training(&with(0.5), 1000));
        assert!((half - (uniform + alike) / 2.0).abs() < 0.02, "{half}, {uniform}, {alike}");

        assert_evaluated_alike([with(1.0), with(0.0)], &Point::new([(Axis::Vectors, 20)]));
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
