//! What the generated tasks share: batches as pure functions of (seed, step).

use super::curriculum::reached;
use super::{Batch, Channels, Column, Point, Scoring, Varying};
use crate::random::{Purpose, stream};
use anyhow::Result;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

/// A task that draws its sequences.
pub trait Generator {
    /// The groups of input channels, X together.
    fn inputs(&self) -> Vec<Channels>;
    /// The groups of output channels, Y together.
    fn outputs(&self) -> Vec<Channels>;
    fn axes(&self) -> Vec<Varying>;
    /// Whether each sequence of a training batch has a shape of its own.
    fn mixed_lengths(&self) -> bool {
        false
    }
    fn scoring(&self) -> Scoring {
        Scoring::Bits
    }
    /// Checks the sizes; the error names the field, its value and what is allowed.
    fn validate(&self) -> Result<()>;
    /// T at a point.
    fn steps(&self, point: &Point) -> usize;
    /// Writes one sequence into a column of zeros. In `training` a share of them, the task's `alike`, has parts that are
    /// alike, which a lookup confuses; in evaluation none has.
    fn draw(&self, point: &Point, training: bool, rng: &mut ChaCha8Rng, column: &mut Column);
}

/// The sequences of a `slice` of the batch of training step `step`, each drawn from (seed, step) and its place in the
/// batch alone, its shape as far as `reach` goes (see `Curriculum`).
pub fn training_batch(
    task: &dyn Generator,
    seed: u64,
    step: u64,
    size: usize,
    reach: f64,
    slice: Range<usize>,
) -> Batch {
    let first = step * size as u64 + slice.start as u64;
    let axes = task.axes();
    let shape = |index| {
        let mut rng = stream(seed, Purpose::TrainingShape, index);
        Point::new(axes.iter().map(|axis| (axis.axis, rng.random_range(reached(axis, reach)))))
    };
    // at batch size 1 both are `step`
    let index = |b| if task.mixed_lengths() { first + b } else { step };
    let points: Vec<Point> = (0..slice.len() as u64).map(|b| shape(index(b))).collect();
    batch(task, &points, |b, point, column| {
        task.draw(point, true, &mut stream(seed, Purpose::TrainingSequence, first + b), column)
    })
}

/// The evaluation sequences `first..first + size` at a point, none made alike: no training run ever draws them.
pub fn evaluation_batch(task: &dyn Generator, seed: u64, point: &Point, first: u64, size: usize) -> Batch {
    batch(task, &vec![point.clone(); size], |b, point, column| {
        task.draw(point, false, &mut stream(seed, Purpose::EvaluationSequence, first + b), column)
    })
}

/// A sequence at each point, number b written by `draw` from a stream of its own.
fn batch(task: &dyn Generator, points: &[Point], draw: impl Fn(u64, &Point, &mut Column)) -> Batch {
    let lengths = points.iter().map(|point| task.steps(point)).collect();
    let mut batch = Batch::zeros(lengths, Channels::width(&task.inputs()), Channels::width(&task.outputs()));
    for (b, point) in points.iter().enumerate() {
        draw(b as u64, point, &mut batch.column(b));
    }
    batch
}
