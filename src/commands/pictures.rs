//! The pictures of `ntm eval`.

use super::usage;
use crate::cli::Pictures;
use crate::config::Recipe;
use crate::engine::Engine;
use crate::files::can_be_written;
use crate::metrics::Score;
use crate::plot::{Beside, Curve, SequenceFigure, Shown, animate, save};
use crate::replay::{Memory, MemoryShape};
use crate::tasks::{Axis, Batch, Point, Source, Task, optimal_predictions};
use crate::terminal::say;
use anyhow::{Result, bail};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// A picture of more steps shows nothing, and what the heads do at each of them fills the memory.
const MAX_STEPS: usize = 20_000;

/// Of weightings in a picture, a gigabyte of them.
const MAX_WEIGHTS: usize = 1 << 28;

/// What was evaluated, and how it went.
pub struct Evaluated<'a> {
    pub recipe: &'a Recipe,
    pub points: &'a [Point],
    pub scores: &'a [Score],
    pub seed: u64,
}

/// Refuses pictures that could not be drawn, before the evaluation.
pub fn check(flags: &Pictures, recipe: &Recipe, source: &mut Source, points: &[Point]) -> Result<()> {
    let mut before = vec![];
    for (flag, path) in flags.files() {
        can_be_written(path, flag)?;
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let place = (folder.canonicalize()?, path.file_name());
        if let Some((other, _)) = before.iter().find(|(_, other)| *other == place) {
            return usage(&format!("`{other}` and `{flag}` name the same file `{}`", path.display()));
        }
        before.push((flag, place));
    }
    let shown = flags.of_a_sequence();
    if let (Some(number), None) = (flags.sequence, shown) {
        return usage(&format!("`--sequence {number}` is the one to draw\nhint: add --plot or --animate"));
    }
    let steps = match (shown, source.largest(points)) {
        (Some(_), Some(point)) if recipe.task.axes().is_empty() => drawn(flags, source, 0, point)?.steps,
        (Some(_), Some(point)) => source.evaluation_steps(point),
        _ => 0,
    };
    if let (Some(flag), true) = (shown, steps > MAX_STEPS) {
        bail!("`{flag}`: the sequence to draw has {steps} steps, allowed: up to {MAX_STEPS}");
    }
    let shape = MemoryShape::of(&recipe.model);
    let weights = shape.map_or(0, |shape| steps * shape.rows * shape.heads());
    if let (Some(flag), true) = (shown, weights > MAX_WEIGHTS) {
        bail!("`{flag}`: {steps} steps are too many to draw with so many memory rows\nhint: fewer of one or the other");
    }
    if flags.animate.is_some() && shape.is_none() {
        bail!("`--animate`: this network has no memory to show\nhint: --plot draws its inputs and outputs");
    }
    if flags.curve.is_some() && recipe.task.axes().is_empty() {
        bail!("`--curve`: {} has no axis to draw along", recipe.task.name());
    }
    Ok(())
}

/// The sequence to draw.
fn drawn(flags: &Pictures, source: &mut Source, seed: u64, point: &Point) -> Result<Batch> {
    let index = flags.sequence.unwrap_or(1) as usize - 1;
    let count = source.evaluation_count(usize::MAX);
    if index >= count {
        bail!("`--sequence {}`: the file has {count} sequences", index + 1);
    }
    source.evaluation_batch(seed, point, index as u64, 1)
}

pub fn draw(
    flags: &Pictures,
    evaluated: Evaluated,
    source: &mut Source,
    engine: &mut dyn Engine,
    theta: &Tensor,
) -> Result<()> {
    let Evaluated { recipe, points, scores, seed } = evaluated;
    if let (Some(path), Some(first)) = (&flags.curve, recipe.task.axes().into_iter().next()) {
        let title = format!("{} against {}", recipe.task.name(), first.axis.name());
        save(&Curve { title, axis: first.axis, training: first.training, scores: scores.to_vec() }, path)?;
        wrote(path);
    }
    let (Some(point), Some(_)) = (source.largest(points), flags.of_a_sequence()) else { return Ok(()) };
    let batch = drawn(flags, source, seed, point)?;
    let logits = engine.forward(theta, &batch)?.to_vec();
    let trace = engine.trace(theta, &batch)?;
    let shape = MemoryShape::of(&recipe.model);
    let at = point.to_string();
    let number = flags.sequence.map_or(String::new(), |number| format!("sequence {number}"));
    let parts = [recipe.task.name(), &at, &number];
    let title = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    if let Some(path) = &flags.plot {
        let heads = shape.map(|shape| (shape, &trace));
        save(&SequenceFigure::new(title.clone(), &batch, &logits, heads, beside(&recipe.task, point, &batch)), path)?;
        wrote(path);
    }
    if let (Some(path), Some(shape)) = (&flags.animate, shape) {
        let theta: Vec<f32> = Vec::try_from(theta.to_device(Device::Cpu).to_kind(Kind::Float))?;
        let start = Memory::start(shape, &recipe.layout(), &theta);
        let shown = Shown { title, batch: &batch, logits: &logits, shape, trace: &trace };
        let every = animate(&shown, &start, path)?;
        wrote(path);
        if every > 1 {
            say(&format!("its {} steps are more than it has frames for: it shows one of {every}", batch.steps));
        }
    }
    Ok(())
}

/// What the figure of this task has beside the others.
fn beside(task: &Task, point: &Point, batch: &Batch) -> Beside {
    match task {
        Task::Ngrams(ngrams) => {
            let predictions = optimal_predictions(batch, 0, ngrams.order - 1).into_iter();
            Beside::Optimum(predictions.map(|one| one.map_or(f32::NAN, |one| one as f32)).collect())
        }
        Task::PrioritySort(sort) => {
            let channels = batch.inputs.iter().skip(sort.width).step_by(task.input_width());
            Beside::Priorities(channels.take(point.at(Axis::Vectors)).copied().collect())
        }
        _ => Beside::Nothing,
    }
}

fn wrote(path: &Path) {
    say(&format!("wrote `{}`", path.display()));
}
