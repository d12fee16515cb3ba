use super::study::by_seed;
use super::{choice, grid, pictures, sized, trained, usage};
use crate::checkpoint::Checkpoint;
use crate::cli::Eval;
use crate::config::Recipe;
use crate::device;
use crate::distributed::Group;
use crate::engine::Engine;
use crate::metrics::{self, Figure, Score, Spread};
use crate::model::{Config, MemoryStart};
use crate::replay::Shape;
use crate::run::Run;
use crate::study::Study;
use crate::tasks::{Point, Source, Task, points};
use crate::terminal::{print, say, table};
use crate::train::evaluate;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::path::PathBuf;
use tch::Tensor;

/// What `--json` prints of a machine.
#[derive(Serialize)]
struct Results {
    checkpoint: String,
    task: &'static str,
    /// The file of sequences of the user's own; null where they are drawn.
    data: Option<String>,
    /// The seed of the evaluation sequences.
    seed: u64,
    /// The seed it was trained with.
    training_seed: u64,
    /// The rows of its memory; null for a network without one.
    rows: Option<usize>,
    engine: &'static str,
    device: String,
    results: Vec<Score>,
}

/// What `--json` prints of a study.
#[derive(Serialize)]
struct StudyResults {
    study: String,
    runs: Vec<Results>,
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
        return study(&flags);
    }
    let Measured { recipe, points, mut source, mut engine, theta, told } =
        measure(&flags, trained(&flags.trained)?, true)?;
    print(&match flags.json {
        true => serde_json::to_string_pretty(&told)? + "\n",
        false => points_table(&told.results) + &positions(&told.results),
    })?; // first: a picture that cannot be written must not take the figures with it
    let evaluated = pictures::Evaluated { recipe: &recipe, points: &points, scores: &told.results, seed: flags.seed };
    pictures::draw(&flags.pictures, evaluated, &mut source, &mut *engine, &theta)
}

/// Every seed of a study, each by the machine that its directory stands for.
fn study(flags: &Eval) -> Result<()> {
    let directory = &flags.trained.checkpoint;
    if let Some((flag, _)) = flags.pictures.files().next() {
        return usage(&format!(
            "`{flag}` draws one machine\nhint: name the directory of a seed, `seed-N` in the study's"
        ));
    }
    let study = Study::read(directory)?;
    let mut runs = vec![];
    for &seed in &study.seeds {
        let Some(file) = Run::machine_in(&study.run_directory(seed)) else {
            say(&format!("seed {seed} has no checkpoint yet: left out"));
            continue;
        };
        let checkpoint = Checkpoint::load(&file)?;
        let own = &checkpoint.recipe;
        if (&own.task, &own.model, &own.evaluation)
            != (&study.recipe.task, &study.recipe.model, &study.recipe.evaluation)
        {
            say(&format!("seed {seed} has a run of another recipe in its place: left out"));
            continue;
        }
        let machine = sized(checkpoint, &flags.trained)?;
        runs.push(measure(flags, (file, machine), runs.is_empty())?.told);
    }
    if runs.is_empty() {
        bail!("no seed of `{}` has a checkpoint", directory.display());
    }
    let metric = study.recipe.solved.threshold.metric;
    let seeds: Vec<(Vec<String>, &[Score])> =
        runs.iter().map(|run| (vec![run.training_seed.to_string()], &run.results[..])).collect();
    let table =
        format!("{}\n{}\n{}", metrics::name(&metric.to_string()), by_seed(&["seed"], &seeds, metric), spreads(&runs));
    let told = StudyResults { study: directory.display().to_string(), runs };
    print(&if flags.json { serde_json::to_string_pretty(&told)? + "\n" } else { table })
}

/// A row a point: of each figure the median over the seeds, the least and the most.
fn spreads(runs: &[Results]) -> String {
    let points = runs.iter().map(|run| &run.results).max_by_key(|results| results.len());
    let mut rows: Vec<Vec<String>> = vec![];
    for (index, score) in points.into_iter().flatten().enumerate() {
        let mut row = point_cells(score);
        for (metric, _) in score.figures.means() {
            let values = runs.iter().filter_map(|run| {
                run.results.get(index)?.figures.means().find(|(name, _)| *name == metric).map(|(_, value)| value)
            });
            let Some(Spread { median, least, most }) = Spread::of(values) else { continue };
            let [median, least, most] = [median, least, most].map(|value| metrics::shown(metric, value));
            row.push((metrics::column(metric), format!("{median} ({least} to {most})")));
        }
        add_row(&mut rows, row);
    }
    let title = format!("median (least to most) of {} seeds", runs.len());
    format!("{title}\n{}", table(&rows, 1))
}

/// Measures a machine of a file. `says`: tells first what measures.
fn measure(flags: &Eval, (file, machine): (PathBuf, Checkpoint), says: bool) -> Result<Measured> {
    let Checkpoint { mut recipe, theta, .. } = machine;
    match (&flags.data, &mut recipe.task) {
        (None, _) => {}
        (Some(data), Task::Sequences(task)) => task.eval = data.clone(),
        (Some(data), task) => {
            bail!("`--data {data}`: {} draws its sequences\nhint: `ntm predict` takes inputs of yours", task.name())
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
    let (mut engine, choice) = choice::machine(&flags.machine, &recipe)?;
    if says {
        say(&choice.words());
        warn_of_rows(flags, &recipe, &points, &mut source)?;
    }
    let theta = Tensor::from_slice(&theta).to_device(choice.device);
    let scores = evaluate(&Group::alone(), &mut *engine, &theta, &mut source, &points, sequences, flags.seed)?;
    let told = Results {
        checkpoint: file.display().to_string(),
        task: recipe.task.name(),
        data: match &recipe.task {
            Task::Sequences(sequences) => Some(sequences.eval.clone()),
            _ => None,
        },
        seed: flags.seed,
        training_seed: recipe.training.seed,
        rows: Shape::of(&recipe.model).map(|shape| shape.rows),
        engine: engine.name(),
        device: device::name(choice.device),
        results: scores,
    };
    Ok(Measured { recipe, points, source, engine, theta, told })
}

/// A word where more goes in before the first answer than the memory has rows, of a machine that takes others. Copy needs a row for
/// its end marker, too.
fn warn_of_rows(flags: &Eval, recipe: &Recipe, points: &[Point], source: &mut Source) -> Result<()> {
    let Config::Ntm(ntm) = &recipe.model else { return Ok(()) };
    let (Some(point), MemoryStart::Constant) = (source.largest(points), ntm.init.memory) else { return Ok(()) };
    if source.evaluation_steps(point) <= ntm.memory.rows || recipe.task.axes().is_empty() {
        return Ok(());
    }
    let batch = source.evaluation_batch(flags.seed, point, 0, 1)?;
    let before = batch.mask.iter().take_while(|mask| **mask == 0.0).count();
    if before > ntm.memory.rows {
        let rows = ntm.memory.rows;
        say(&format!(
            "at {point} {before} steps go in before the first answer: more than {rows} rows hold; see --rows"
        ));
    }
    Ok(())
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

/// A row a point.
fn points_table(scores: &[Score]) -> String {
    let mut rows: Vec<Vec<String>> = vec![];
    for score in scores {
        let mut row = point_cells(score);
        for (metric, figure) in &score.figures.0 {
            let value = match figure {
                Figure::Mean(value) => metrics::shown(metric, *value),
                Figure::Count(count) => format!("{count}/{}", score.sequences),
                Figure::List(_) => continue,
            };
            row.push((metrics::column(metric), value));
        }
        add_row(&mut rows, row);
    }
    table(&rows, 1)
}

/// The first cells of a point's row, with their headings.
fn point_cells(score: &Score) -> Vec<(String, String)> {
    let axes = score.point.values().map(|(axis, value)| (axis.name().to_string(), value.to_string()));
    axes.chain([("sequences".to_string(), score.sequences.to_string())]).collect()
}

/// Adds a row of cells, below their headings.
fn add_row(rows: &mut Vec<Vec<String>>, row: Vec<(String, String)>) {
    let (headings, values) = row.into_iter().unzip();
    if rows.is_empty() {
        rows.push(headings);
    }
    rows.push(values);
}

/// Below the table, for tasks that have it: wrong bits by position of the answer, a column a point.
fn positions(scores: &[Score]) -> String {
    let lists = || {
        let figures = scores.iter().flat_map(|score| score.figures.0.iter().map(move |figure| (&score.point, figure)));
        figures.filter_map(|(point, (metric, figure))| match figure {
            Figure::List(values) => Some((point, metric, values)),
            _ => None,
        })
    };
    let Some((_, metric, _)) = lists().next() else { return String::new() };
    let longest = lists().map(|(.., values)| values.len()).max().unwrap_or(0);
    let names = lists().map(|(point, ..)| point.to_string());
    let mut rows: Vec<Vec<String>> = vec![std::iter::once("position".to_string()).chain(names).collect()];
    for position in 0..longest {
        let values = lists().map(|(.., values)| values.get(position).map_or(String::new(), |x| format!("{x:.4}")));
        rows.push(std::iter::once((position + 1).to_string()).chain(values).collect());
    }
    format!("\n{}\n{}", metrics::name(metric), table(&rows, 1))
}
