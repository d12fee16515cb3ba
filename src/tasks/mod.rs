//! Tasks: where sequences come from. A batch of training step k is a pure function of (seed, k), and of how far a
//! curriculum has come.
//!
//! A new task is a file here, with its picture; a variant of `Task`, with a line in each function of it, `kinds` first; a
//! recipe in tasks/; its row in docs/recipes.md; its lines in `properties.rs` and in `TASKS` of tests/cli/tasks.rs. The
//! compiler (`cargo check --tests`) and the tests name what is missing. An axis of its own is one in `axes.rs` and a flag.

mod associative_recall;
mod axes;
mod batch;
mod copy;
mod curriculum;
mod files;
mod generator;
mod line;
mod ngrams;
mod picture;
mod priority_sort;
#[cfg(test)]
mod properties;
mod repeat_copy;
mod sequences;
mod source;

pub use associative_recall::AssociativeRecall;
pub use axes::{Axis, Grid, MOST, Point, Varying, points};
pub use batch::{Batch, Column, Loss};
pub use copy::Copy;
pub use curriculum::{Curriculum, Lesson};
pub use generator::Generator;
pub use line::{Line, read_line, unmarked};
pub use ngrams::{Ngrams, optimal_predictions, optimum};
pub use picture::picture;
pub use priority_sort::PrioritySort;
pub use repeat_copy::{Count, RepeatCopy};
pub use sequences::Sequences;
pub use source::Source;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The task of a recipe: its kind and its sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Task {
    Copy(Copy),
    RepeatCopy(RepeatCopy),
    AssociativeRecall(AssociativeRecall),
    Ngrams(Ngrams),
    PrioritySort(PrioritySort),
    Sequences(Sequences),
}

/// A task by where its sequences come from.
pub enum Origin<'a> {
    Generated(&'a dyn Generator),
    Files(&'a Sequences),
}

/// Some channels that belong together.
#[derive(Clone, Debug)]
pub struct Channels {
    pub name: &'static str,
    pub width: usize,
}

impl Channels {
    pub fn new(name: &'static str, width: usize) -> Channels {
        Channels { name, width }
    }

    /// The number of all channels.
    pub fn width(groups: &[Channels]) -> usize {
        groups.iter().map(|group| group.width).sum()
    }
}

/// What is counted of a task's answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scoring {
    /// Wrong bits.
    Bits,
    /// Wrong bits, the last channel, an end marker, apart.
    BitsAndMarker,
    /// Wrong bits, also at each position of the answer.
    BitsByPosition,
    /// Wrong bits, and beside their cost the Bayes optimum for contexts of this many bits.
    BitsAndOptimum { context: usize },
    /// Squared errors.
    Squares,
}

impl Task {
    /// The default task of every kind, for recipes that leave fields out; the usual one first.
    pub fn kinds() -> Vec<Task> {
        vec![
            Task::Copy(Copy::default()),
            Task::RepeatCopy(RepeatCopy::default()),
            Task::AssociativeRecall(AssociativeRecall::default()),
            Task::Ngrams(Ngrams::default()),
            Task::PrioritySort(PrioritySort::default()),
            Task::Sequences(Sequences::default()),
        ]
    }

    pub fn name(&self) -> &'static str {
        match self {
            Task::Copy(_) => "copy",
            Task::RepeatCopy(_) => "repeat-copy",
            Task::AssociativeRecall(_) => "associative-recall",
            Task::Ngrams(_) => "ngrams",
            Task::PrioritySort(_) => "priority-sort",
            Task::Sequences(_) => "sequences",
        }
    }

    pub fn origin(&self) -> Origin<'_> {
        match self {
            Task::Copy(task) => Origin::Generated(task),
            Task::RepeatCopy(task) => Origin::Generated(task),
            Task::AssociativeRecall(task) => Origin::Generated(task),
            Task::Ngrams(task) => Origin::Generated(task),
            Task::PrioritySort(task) => Origin::Generated(task),
            Task::Sequences(task) => Origin::Files(task),
        }
    }

    /// The groups of input and of output channels.
    pub fn channels(&self) -> (Vec<Channels>, Vec<Channels>) {
        match self.origin() {
            Origin::Generated(task) => (task.inputs(), task.outputs()),
            Origin::Files(task) => {
                (vec![Channels::new("input", task.input_width)], vec![Channels::new("target", task.output_width)])
            }
        }
    }

    /// X, the values per step that go in.
    pub fn input_width(&self) -> usize {
        Channels::width(&self.channels().0)
    }

    /// Y, the values per step that come out.
    pub fn output_width(&self) -> usize {
        Channels::width(&self.channels().1)
    }

    /// X and Y.
    pub fn widths(&self) -> (usize, usize) {
        (self.input_width(), self.output_width())
    }

    /// What its sequences vary in; own data vary as they do.
    pub fn axes(&self) -> Vec<Varying> {
        match self.origin() {
            Origin::Generated(task) => task.axes(),
            Origin::Files(_) => vec![],
        }
    }

    pub fn scoring(&self) -> Scoring {
        match self.origin() {
            Origin::Generated(task) => task.scoring(),
            Origin::Files(task) => task.scoring(),
        }
    }

    /// What its outputs are trained by, which says how they are read.
    pub fn loss(&self) -> Loss {
        match self.origin() {
            Origin::Generated(_) => Loss::CrossEntropy,
            Origin::Files(task) => task.loss,
        }
    }

    /// Checks the sizes; the error names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        match self.origin() {
            Origin::Generated(task) => task.validate(),
            Origin::Files(task) => task.validate(),
        }
    }

    /// The most steps a training sequence can have.
    pub fn max_steps(&self) -> usize {
        match self.origin() {
            Origin::Generated(task) => task.steps(&self.longest()),
            Origin::Files(task) => task.max_steps,
        }
    }

    /// The point of the longest training sequences.
    pub fn longest(&self) -> Point {
        Point::new(self.axes().iter().map(|axis| (axis.axis, *axis.training.end())))
    }

    /// A point to look at.
    pub fn sample(&self) -> Point {
        Point::new(self.axes().iter().map(|axis| (axis.axis, axis.sample)))
    }
}
