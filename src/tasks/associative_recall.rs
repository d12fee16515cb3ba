//! Associative recall (Graves et al. 2014, section 4.3): see a list of items, then one of them again, and answer with
//! the item that followed it.
//!
//!     step            0  1  2  3  4  5  6  7  8  9 10 11         2 items of 2 vectors, so T = 2 * 3 + 4 + 2
//!     input   data    .  1  0  .  1  1  .  1  0  .  .  .
//!             ...     .  0  0  .  0  1  .  0  0  .  .  .         `width` channels of data
//!             item    1  .  .  1  .  .  .  .  .  .  .  .         comes before each item
//!             query   .  .  .  .  .  .  1  .  .  1  .  .         stands around the query
//!     target  data    .  .  .  .  .  .  .  .  .  .  1  1
//!             ...     .  .  .  .  .  .  .  .  .  .  0  1
//!     mask            .  .  .  .  .  .  .  .  .  .  1  1         only these steps count
//!
//! The query is uniform among all items but the last, which nothing follows. Items are drawn independently, so two of
//! 18 bits are equal once in 2^18 pairs; then only the order of drawing says which one was meant.

use super::batch::{bits, chosen};
use super::{Axis, Channels, Column, Generator, MOST, Point, Varying};
use crate::limits::in_range;
use anyhow::Result;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Sizes of the task. The number of items in training is uniform in `min_items..=max_items`, both ends included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssociativeRecall {
    pub width: usize,
    /// The vectors of an item.
    pub item_length: usize,
    pub min_items: usize,
    pub max_items: usize,
    /// The share of training sequences whose items are alike (see `make_alike`). Evaluation draws all bits uniformly.
    pub alike: f64,
    pub mixed_lengths: bool,
}

impl Default for AssociativeRecall {
    fn default() -> Self {
        AssociativeRecall { width: 6, item_length: 3, min_items: 2, max_items: 6, alike: 0.0, mixed_lengths: true }
    }
}

impl Generator for AssociativeRecall {
    fn inputs(&self) -> Vec<Channels> {
        vec![Channels::new("data", self.width), Channels::new("item", 1), Channels::new("query", 1)]
    }

    fn outputs(&self) -> Vec<Channels> {
        vec![Channels::new("data", self.width)]
    }

    fn axes(&self) -> Vec<Varying> {
        let training = self.min_items..=self.max_items;
        vec![Varying { axis: Axis::Items, least: 2, training, evaluation: vec![6, 20], sample: 3 }]
    }

    fn mixed_lengths(&self) -> bool {
        self.mixed_lengths
    }

    fn validate(&self) -> Result<()> {
        in_range("task.width", self.width, 1, 4096)?;
        in_range("task.item_length", self.item_length, 1, 10_000)?;
        in_range("task.min_items", self.min_items, 2, MOST)?;
        in_range("task.max_items", self.max_items, self.min_items, MOST)?;
        in_range("task.alike", self.alike, 0.0, 1.0)
    }

    fn steps(&self, point: &Point) -> usize {
        point.at(Axis::Items) * (1 + self.item_length) + (self.item_length + 2) + self.item_length
    }

    fn draw(&self, point: &Point, training: bool, rng: &mut ChaCha8Rng, column: &mut Column) {
        let (length, width) = (self.item_length, self.width);
        let mut item = || (0..length).map(|_| bits(rng, width)).collect();
        let mut items: Vec<Item> = (0..point.at(Axis::Items)).map(|_| item()).collect();
        if training && chosen(self.alike, rng) {
            make_alike(&mut items, rng);
        }
        let mut t = 0;
        for item in &items {
            column.input(t)[width] = 1.0;
            for (vector, t) in item.iter().zip(t + 1..) {
                column.input(t)[..width].copy_from_slice(vector);
            }
            t += 1 + length;
        }
        let query = rng.random_range(0..items.len() - 1);
        column.input(t)[width + 1] = 1.0;
        for (vector, t) in items[query].iter().zip(t + 1..) {
            column.input(t)[..width].copy_from_slice(vector);
        }
        t += 1 + length;
        column.input(t)[width + 1] = 1.0;
        for (vector, t) in items[query + 1].iter().zip(t + 1..) {
            column.answer(t).copy_from_slice(vector);
        }
    }
}

type Item = Vec<Vec<f32>>;

/// Makes half of the items after the first equal to one before them but for a bit, which a head that looks up by
/// content confuses and uniform bits seldom show. One that would then equal another stays as it is: the query must mean
/// one item.
fn make_alike(items: &mut [Item], rng: &mut impl Rng) {
    for index in 1..items.len() {
        if rng.random::<f64>() < 0.5 {
            let mut near = items[rng.random_range(0..index)].clone();
            let (vector, bit) = (rng.random_range(0..near.len()), rng.random_range(0..near[0].len()));
            near[vector][bit] = 1.0 - near[vector][bit];
            if !items.contains(&near) {
                items[index] = near;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::AssociativeRecall;
    use crate::tasks::properties::{Drawn, assert_answers_follow, assert_evaluated_alike, assert_uniform};
    use crate::tasks::{Axis, Point, Task};

    /// The list as items of vectors, and the query: cut at the delimiters.
    fn read(drawn: &Drawn) -> (Vec<Vec<Vec<f32>>>, Vec<Vec<f32>>) {
        let (mut items, mut query, mut queries) = (vec![], vec![], 0);
        for input in &drawn.input {
            match (input[6] == 1.0, input[7] == 1.0, queries) {
                (true, false, 0) => items.push(vec![]),
                (false, true, _) => queries += 1,
                (false, false, 0) => items.last_mut().expect("a delimiter before each item").push(input[..6].to_vec()),
                (false, false, 1) => query.push(input[..6].to_vec()),
                _ => assert!(input.iter().all(|&value| value == 0.0), "nothing follows the query"),
            }
        }
        assert_eq!(queries, 2, "a delimiter before the query and one after it");
        assert!(items.iter().chain([&query]).all(|item| item.len() == 3));
        (items, query)
    }

    #[test]
    fn the_answer_is_the_item_after_the_query_and_the_query_is_never_the_last() {
        assert_answers_follow(
            &Task::AssociativeRecall(AssociativeRecall { alike: 0.5, ..Default::default() }),
            |drawn| {
                let (items, query) = read(drawn);
                let at: Vec<usize> = (0..items.len() - 1).filter(|&i| items[i] == query).collect();
                // two equal items are possible, though rare: then the answer must follow one of them
                let at = *at.iter().find(|&&i| items[i + 1] == drawn.answers()).expect("an item before the last");
                items[at + 1].clone()
            },
        );
    }

    /// The share of neighbours in the list that differ in at most one bit. No two items are equal.
    fn near(drawn: impl Iterator<Item = Drawn>) -> f64 {
        let mut near = vec![];
        for drawn in drawn {
            let (items, _) = read(&drawn);
            assert!((1..items.len()).all(|index| !items[..index].contains(&items[index])), "{items:?}");
            let differing = |pair: &[Vec<Vec<f32>>]| {
                pair[0].iter().flatten().zip(pair[1].iter().flatten()).filter(|(a, b)| a != b).count()
            };
            near.extend(items.windows(2).map(|pair| (differing(pair) <= 1) as u8 as f64));
        }
        near.iter().sum::<f64>() / near.len() as f64
    }

    #[test]
    fn a_share_of_training_sequences_has_items_alike_and_evaluation_none() {
        let with = |alike| {
            Task::AssociativeRecall(AssociativeRecall { alike, min_items: 6, max_items: 6, ..Default::default() })
        };
        assert!(near(Drawn::training(&with(0.0), 1000)) < 0.002); // 19 of 2^18
        // the second is the first with a bit changed in 1/2, the third the second in 1/4, ... the sixth the fifth in
        // 1/10
        let alike = near(Drawn::training(&with(1.0), 4000));
        let neighbours = (1..6).map(|index| 0.5 / index as f64).sum::<f64>() / 5.0;
        assert!((alike - neighbours).abs() < 0.015, "{alike}, {neighbours}");
        let half = near(Drawn::training(&with(0.5), 4000));
        assert!((half - alike / 2.0).abs() < 0.01, "{half}, {alike}");

        assert_evaluated_alike([with(1.0), with(0.0)], &Point::new([(Axis::Items, 20)]));
    }

    #[test]
    fn two_items_of_one_bit_can_be_drawn_though_a_third_must_equal_one() {
        let tiny = AssociativeRecall { width: 1, item_length: 1, alike: 1.0, ..Default::default() };
        assert_eq!(Drawn::training(&Task::AssociativeRecall(tiny), 50).count(), 50);
    }

    #[test]
    fn both_ends_of_the_number_of_items_are_drawn() {
        assert_uniform(&Task::AssociativeRecall(AssociativeRecall::default()), 2..=6, |drawn| read(drawn).0.len());
    }

    #[test]
    fn every_item_but_the_last_is_asked_for_equally_often() {
        let task = Task::AssociativeRecall(AssociativeRecall::default());
        let mut asked = [0; 6];
        for drawn in Drawn::evaluation(&task, &Point::new([(Axis::Items, 6)]), 4000) {
            let (items, query) = read(&drawn);
            asked[items.iter().position(|item| *item == query).expect("one of the list")] += 1;
        }
        // 800 each, standard deviation 25
        assert!(asked[..5].iter().all(|count| (670..930).contains(count)) && asked[5] == 0, "{asked:?}");
    }
}
