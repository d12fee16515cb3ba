//! Tasks: where sequences come from. A batch of training step k is a pure function of (seed, k).

mod copy;

pub use copy::Copy;

use crate::random::{Purpose, stream};
use anyhow::Result;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The task of a recipe: its kind and its sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Task {
    Copy(Copy),
}

/// A batch on the host, time-major and row-major. Sequences shorter than `steps` are padded at their end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// T, the steps of the longest sequence.
    pub steps: usize,
    /// The steps of each sequence (B).
    pub lengths: Vec<usize>,
    pub inputs: Vec<f32>,  // (T, B, X)
    pub targets: Vec<f32>, // (T, B, Y)
    /// 1 where the output counts, else 0.
    pub mask: Vec<f32>, // (T, B)
}

impl Batch {
    /// B, the number of sequences.
    pub fn size(&self) -> usize {
        self.lengths.len()
    }

    /// An empty batch of zeros for sequences of the given steps.
    fn zeros(lengths: Vec<usize>, input_width: usize, output_width: usize) -> Batch {
        let steps = lengths.iter().copied().max().unwrap_or(0);
        let rows = steps * lengths.len();
        Batch {
            steps,
            lengths,
            inputs: vec![0.0; rows * input_width],
            targets: vec![0.0; rows * output_width],
            mask: vec![0.0; rows],
        }
    }

    /// What each masked output weighs in the training loss, which is the mean over the batch of each
    /// sequence's mean cross-entropy per target bit: mask / (B * masked steps of the sequence * Y). Shape (T, B).
    pub fn loss_weights(&self, output_width: usize) -> Vec<f32> {
        let size = self.size();
        let mut masked_steps = vec![0.0; size];
        for (i, mask) in self.mask.iter().enumerate() {
            masked_steps[i % size] += mask;
        }
        let weight = |(i, mask): (usize, &f32)| mask / (size * output_width) as f32 / masked_steps[i % size].max(1.0);
        self.mask.iter().enumerate().map(weight).collect()
    }
}

/// One point of the space a task is evaluated over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub length: usize,
}

impl Task {
    /// The default task of every kind, for recipes that leave fields out.
    pub fn kinds() -> Vec<Task> {
        vec![Task::Copy(Copy::default())]
    }

    pub fn name(&self) -> &'static str {
        match self {
            Task::Copy(_) => "copy",
        }
    }

    /// X, the values per step that go in.
    pub fn input_width(&self) -> usize {
        match self {
            Task::Copy(task) => task.input_width(),
        }
    }

    /// Y, the values per step that come out.
    pub fn output_width(&self) -> usize {
        match self {
            Task::Copy(task) => task.output_width(),
        }
    }

    /// Checks the sizes; the error names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        match self {
            Task::Copy(task) => task.validate(),
        }
    }

    /// The most steps a training sequence can have.
    pub fn max_steps(&self) -> usize {
        match self {
            Task::Copy(task) => Copy::steps(task.max_length),
        }
    }

    /// The batch of training step `step`, drawn from (seed, step) alone. Its sequences share one length.
    pub fn training_batch(&self, seed: u64, step: u64, size: usize) -> Batch {
        let Task::Copy(task) = self;
        let length = stream(seed, Purpose::TrainingShape, step).random_range(task.min_length..=task.max_length);
        let first = step * size as u64;
        self.batch(&Point { length }, size, |b| stream(seed, Purpose::TrainingSequence, first + b))
    }

    /// The evaluation sequences `first..first + size` at a point: no training run ever draws them.
    pub fn evaluation_batch(&self, seed: u64, point: &Point, first: u64, size: usize) -> Batch {
        self.batch(point, size, |b| stream(seed, Purpose::EvaluationSequence, first + b))
    }

    /// A batch at a point, sequence b drawn from its own stream.
    fn batch(&self, point: &Point, size: usize, stream: impl Fn(u64) -> ChaCha8Rng) -> Batch {
        let Task::Copy(task) = self;
        let mut batch = Batch::zeros(vec![Copy::steps(point.length); size], self.input_width(), self.output_width());
        for b in 0..size {
            task.draw(&mut stream(b as u64), point.length, b, &mut batch);
        }
        batch
    }
}
