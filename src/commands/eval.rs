//! `ntm eval`: figures of a trained machine, or of each seed of a study, as a table or JSON; pictures.

use super::tables::{by_seed, points_table, positions, ranges, spreads};
use super::{backend, grid, pictures, sized, too_few_rows, trained, usage};
use crate::checkpoint::Checkpoint;
use crate::cli::Eval;
use crate::config::{Metric, Recipe};
use crate::device;
use crate::display::Measuring;
use crate::distributed::Group;
use crate::engine::{Engine, EngineKind};
use crate::metrics::{Figures, Score, Totals};
use crate::replay::MemoryShape;
use crate::run::Run;
use crate::study::Study;
use crate::tasks::{Batch, Point, Source, Task, points};
use crate::terminal::{print, say};
use crate::train::{Protocol, evaluate};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::path::PathBuf;
use tch::Tensor;

/// What `--json` prints of a machine.
#[derive(Serialize)]
struct Results {
    checkpoint: String,
    /// The updates that have made it.
    step: u64,
    task: &'static str,
    /// The file of sequences of the user's own; null where they are drawn.
    data: Option<String>,
    /// The seed of the evaluation sequences.
    seed: u64,
    /// The seed it was trained with.
    training_seed: u64,
    /// The rows of its memory; null for a network without one.
    rows: Option<usize>,
    engine: EngineKind,
    device: String,
    results: Vec<Score>,
}

/// What `--json` prints of a study.
#[derive(Serialize)]
struct StudyResults {
    study: String,
    runs: Vec<Results>,
}

/// A line of `--per-sequence`.
#[derive(Serialize)]
struct OfSequence<'a> {
    training_seed: u64,
    #[serde(flatten)]
    point: &'a Point,
    /// As `--sequence` counts them, from 1.
    sequence: usize,
    #[serde(flatten)]
    figures: Figures,
}

/// A machine and how it did.
struct Measured {
    recipe: Recipe,
    points: Vec<Point>,
    source: Source,
    engine: Box<dyn Engine>,
    theta: Tensor,
    told: Results,
}

pub fn run(flags: Eval) -> Result<()> {
    if Study::is_in(&flags.trained.checkpoint) {
        return run_study(&flags);
    }
    let Measured { recipe, points, mut source, mut engine, theta, told } =
        measure(&flags, trained(&flags.trained)?, true)?;
    // first: a picture that cannot be written must not take the figures with it
    print_results(&flags, &told, || points_table(&told.results) + &positions(&told.results))?;
    let evaluated = pictures::Evaluated { recipe: &recipe, points: &points, scores: &told.results, seed: flags.seed };
    pictures::draw(&flags.pictures, evaluated, &mut source, &mut *engine, &theta)
}

/// Every seed of a study, each by the machine that its directory stands for.
fn run_study(flags: &Eval) -> Result<()> {
    let directory = &flags.trained.checkpoint;
    if let Some((flag, _)) = flags.pictures.files().next() {
        return usage(&format!(
            "`{flag}` draws one machine\nhint: name the directory of a seed, `seed-N` in the study's"
        ));
    }
    let study = Study::read(directory)?;
    let mut notes = Notes::default();
    let mut runs = vec![];
    for &seed in &study.seeds {
        let Some((file, checkpoint)) = machine_of(&study, seed, flags.trained.latest, &mut notes)? else { continue };
        let machine = sized(checkpoint, &flags.trained)?;
        runs.push(measure(flags, (file, machine), runs.is_empty())?.told);
    }
    notes.say();
    if runs.is_empty() {
        bail!("no seed of `{}` has a checkpoint of its recipe", directory.display());
    }
    let told = StudyResults { study: directory.display().to_string(), runs };
    print_results(flags, &told, || seeds_table(&told.runs, study.recipe.solved.threshold.metric))
}

/// Prints what was measured, but where each sequence has been printed.
fn print_results(flags: &Eval, told: &impl Serialize, table: impl Fn() -> String) -> Result<()> {
    match (flags.per_sequence, flags.json) {
        (true, _) => Ok(()),
        (false, true) => print(&(serde_json::to_string_pretty(told)? + "\n")),
        (false, false) => print(&table()),
    }
}

/// The seeds of a study of which there is something to say.
#[derive(Default)]
struct Notes {
    missing: Vec<u64>,
    unfinished: Vec<u64>,
    without_best: Vec<u64>,
}

impl Notes {
    fn say(&self) {
        for (seeds, what) in [
            (&self.missing, "no checkpoint yet: left out"),
            (&self.unfinished, "not come to the end of training"),
            (&self.without_best, "no best machine: measured by the latest"),
        ] {
            match seeds[..] {
                [] => {}
                [seed] => say(&format!("seed {seed} has {what}")),
                _ => say(&format!("seeds {} have {what}", ranges(seeds))),
            }
        }
    }
}

/// The machine of one seed of a study, and its file; none where there is none of the study's recipe yet.
fn machine_of(study: &Study, seed: u64, latest: bool, notes: &mut Notes) -> Result<Option<(PathBuf, Checkpoint)>> {
    let directory = study.run_directory(seed);
    let Some(file) = Run::checkpoint_in(&directory, latest) else {
        notes.missing.push(seed);
        return Ok(None);
    };
    let checkpoint = Checkpoint::load(&file)?;
    if !study.has(seed, &checkpoint.recipe) {
        say(&format!("seed {seed} has a run of another recipe in its place: left out"));
        return Ok(None);
    }
    let has_ended = |mut latest: Checkpoint| {
        let own = latest.recipe.training.sequences;
        latest.recipe.training.sequences = own.max(study.recipe.training.sequences);
        latest.ended()
    };
    if !Run::latest_of(&directory).is_ok_and(has_ended) {
        notes.unfinished.push(seed);
    }
    if !latest && file == Run::latest_in(&directory) {
        notes.without_best.push(seed);
    }
    Ok(Some((file, checkpoint)))
}

/// A row a seed, and the median and range of each mean.
fn seeds_table(runs: &[Results], metric: Metric) -> String {
    let seeds: Vec<(Vec<String>, &[Score])> =
        runs.iter().map(|run| (vec![run.training_seed.to_string()], &run.results[..])).collect();
    let scores: Vec<&[Score]> = runs.iter().map(|run| &run.results[..]).collect();
    format!("{}\n{}\n{}", metric.said(&runs[0].results), by_seed(&["seed"], &seeds, metric), spreads(&scores))
}

/// Measures a machine of a file. `says`: tells first what measures.
fn measure(flags: &Eval, (file, machine): (PathBuf, Checkpoint), says: bool) -> Result<Measured> {
    let Checkpoint { mut recipe, theta, progress, .. } = machine;
    match (&flags.data, &mut recipe.task) {
        (None, _) => {}
        (Some(data), Task::Sequences(task)) => task.eval = data.clone(),
        (Some(data), task) => {
            bail!("`--data {data}`: {} takes no data file\nhint: `ntm predict` takes inputs of yours", task.name())
        }
    }
    let grid = grid(&flags.axes, &recipe.task, recipe.evaluation.grid.clone())?;
    if let Some((axis, _)) = grid.iter().find(|(_, values)| values.is_empty()) {
        bail!("the recipe names no {} to measure at\nhint: name some with --{}", axis.plural(), axis.plural());
    }
    let points = points(&grid);
    let mut source = match (&recipe.task, &flags.data) {
        (Task::Sequences(_), None) => own_file(&recipe.task, says)?,
        (task, _) => Source::open_for_evaluation(task)?,
    };
    source.check(&points)?;
    pictures::check(&flags.pictures, &recipe, &mut source, &points)?;
    let all_or_100 = if recipe.task.axes().is_empty() { 0 } else { 100 };
    let sequences = flags.sequences.map_or(all_or_100, |sequences| sequences as usize);
    let (mut engine, backend) = backend::open_engine(&flags.compute, &recipe)?;
    if says {
        say(&backend.words());
        if let Some(words) = too_few_rows(&recipe, &points, &mut source, flags.seed)? {
            say(&format!("{words}; see --rows"));
        }
    }
    let theta = Tensor::from_slice(&theta).to_device(backend.device);
    let bar = (!flags.per_sequence).then(|| Measuring::new(points.len() * source.evaluation_count(sequences)));
    let protocol = Protocol { points: &points, sequences, seed: flags.seed };
    let seen = |point: &Point, first: usize, batch: &Batch, logits: &[f32]| match &bar {
        Some(bar) => {
            bar.advance(batch.size());
            Ok(())
        }
        None => print(&lines(&recipe, point, first, &Totals::of_each(recipe.task.scoring(), logits, batch))?),
    };
    let scores = evaluate(&Group::alone(), &mut *engine, &theta, &mut source, &protocol, seen)?;
    drop(bar);
    let told = Results {
        checkpoint: file.display().to_string(),
        step: progress.step,
        task: recipe.task.name(),
        data: match &recipe.task {
            Task::Sequences(sequences) => Some(sequences.eval.clone()),
            _ => None,
        },
        seed: flags.seed,
        training_seed: recipe.training.seed,
        rows: MemoryShape::of(&recipe.model).map(|shape| shape.rows),
        engine: engine.kind(),
        device: device::name(backend.device),
        results: scores,
    };
    Ok(Measured { recipe, points, source, engine, theta, told })
}

/// The lines of `--per-sequence` for sequences of a point, the first of them of this number, from 0.
fn lines(recipe: &Recipe, point: &Point, first: usize, each: &[Totals]) -> Result<String> {
    let mut lines = String::new();
    for (index, totals) in each.iter().enumerate() {
        let (training_seed, figures) = (recipe.training.seed, totals.figures(recipe.task.scoring()));
        let line = OfSequence { training_seed, point, sequence: first + index + 1, figures };
        lines += &(serde_json::to_string(&line)? + "\n");
    }
    Ok(lines)
}

/// The file that a recipe is evaluated on, which may have moved or changed since the machine was trained.
fn own_file(task: &Task, says: bool) -> Result<Source> {
    let source = Source::open_for_evaluation(task);
    let source = source.context("the evaluation file of the recipe (`--data FILE` names another)")?;
    if let (Task::Sequences(sequences), Some(content)) = (task, source.evaluation_content())
        && !sequences.eval_content.is_empty()
        && sequences.eval_content != content
        && says
    {
        say(&format!("`{}` is not what it was in training: {content}", sequences.eval));
    }
    Ok(source)
}
