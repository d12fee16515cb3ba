use super::choice::machine;
use super::{grid, pictures, trained};
use crate::checkpoint::Checkpoint;
use crate::cli::Eval;
use crate::device;
use crate::distributed::Group;
use crate::metrics::{self, Figure, Score};
use crate::replay::Shape;
use crate::tasks::{Source, Task, points};
use crate::terminal::{print, say, table};
use crate::train::evaluate;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use tch::Tensor;

/// What `--json` prints.
#[derive(Serialize)]
struct Results<'a> {
    checkpoint: String,
    task: &'a str,
    /// The file of sequences of the user's own; null where they are drawn.
    data: Option<&'a str>,
    /// Of the sequences.
    seed: u64,
    /// Of the memory; null for a network without one.
    rows: Option<usize>,
    engine: &'a str,
    device: String,
    results: &'a [Score],
}

pub fn run(flags: Eval) -> Result<()> {
    let (checkpoint, Checkpoint { mut recipe, theta, .. }) = trained(&flags.trained)?;
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
        (Task::Sequences(_), None) => own_file(&recipe.task)?,
        (task, _) => Source::open_for_evaluation(task)?,
    };
    source.check(&points)?;
    pictures::check(&flags.pictures, &recipe, &mut source, &points)?;
    let all_or_100 = if recipe.task.axes().is_empty() { 0 } else { 100 };
    let sequences = flags.sequences.map_or(all_or_100, |sequences| sequences as usize);
    let (mut engine, choice) = machine(&flags.machine, &recipe)?;
    say(&choice.words());
    let theta = Tensor::from_slice(&theta).to_device(choice.device);
    let scores = evaluate(&Group::alone(), &mut *engine, &theta, &mut source, &points, sequences, flags.seed)?;
    let told = Results {
        checkpoint: checkpoint.display().to_string(),
        task: recipe.task.name(),
        data: match &recipe.task {
            Task::Sequences(sequences) => Some(&sequences.eval),
            _ => None,
        },
        seed: flags.seed,
        rows: Shape::of(&recipe.model).map(|shape| shape.rows),
        engine: engine.name(),
        device: device::name(choice.device),
        results: &scores,
    };
    print(&match flags.json {
        true => serde_json::to_string_pretty(&told)? + "\n",
        false => points_table(&scores) + &positions(&scores),
    })?; // first: a picture that cannot be written must not take the figures with it
    let evaluated = pictures::Evaluated { recipe: &recipe, points: &points, scores: &scores, seed: flags.seed };
    pictures::draw(&flags.pictures, evaluated, &mut source, &mut *engine, &theta)
}

/// The file that a recipe is evaluated on, which may have moved or changed since the machine was trained.
fn own_file(task: &Task) -> Result<Source> {
    let source = Source::open_for_evaluation(task);
    let source = source.context("the evaluation file of the recipe (`--data FILE` names another)")?;
    if let (Task::Sequences(sequences), Some(content)) = (task, source.evaluation_content()) {
        if !sequences.eval_content.is_empty() && sequences.eval_content != content {
            say(&format!("`{}` is not what it was in training: {content}", sequences.eval));
        }
    }
    Ok(source)
}

/// A row a point.
fn points_table(scores: &[Score]) -> String {
    let mut rows: Vec<Vec<String>> = vec![];
    for Score { point, sequences, figures } in scores {
        let mut row: Vec<(String, String)> =
            point.values().map(|(axis, value)| (axis.name().to_string(), value.to_string())).collect();
        row.push(("sequences".to_string(), sequences.to_string()));
        for (metric, figure) in &figures.0 {
            let value = match figure {
                Figure::Mean(value) if *metric == "squared_error" => significant(*value),
                Figure::Mean(value) => format!("{value:.4}"),
                Figure::Count(count) => format!("{count}/{sequences}"),
                Figure::List(_) => continue,
            };
            row.push((metrics::column(metric), value));
        }
        let (headings, values) = row.into_iter().unzip();
        if rows.is_empty() {
            rows.push(headings);
        }
        rows.push(values);
    }
    table(&rows, 1)
}

/// Four digits after the point, and three that count where these would be zeros: squares may have any scale.
fn significant(value: f64) -> String {
    if value != 0.0 && value < 5e-3 { format!("{value:.2e}") } else { format!("{value:.4}") }
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
