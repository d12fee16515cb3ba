//! `ntm train --seeds`: many runs, one summary.

use super::train::{as_begun, change, directory, hold, recipe};
use super::{Choice, cores};
use crate::cli::Train;
use crate::config::Metric;
use crate::display::{print, say, shell_path, table};
use crate::metrics::{self, Spread};
use crate::run::Run;
use crate::study::{Outcome, Start, Study, Summary};
use crate::tasks::{Point, Source};
use crate::train::Trainer;
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::ExitCode;

pub fn run(flags: &Train, stop: impl Fn() -> Option<i32> + Sync) -> Result<ExitCode> {
    let choice = Choice::new(&flags.machine, 1)?;
    let jobs = flags.jobs.map_or((cores() / choice.threads).max(1), usize::from);
    let (study, shown) = study(flags, jobs)?;
    let choice = choice.for_recipe(&flags.machine, &study.recipe)?;
    say(&choice.words());
    let (count, parent) = (study.seeds.len(), shell_path(&shown));
    say(&format!("training {count} seeds, {} at a time, into {parent}", jobs.min(count)));
    let start = |seed| start(&study, seed, flags, &choice);
    let outcomes = match study.run(jobs, start, stop, |outcome| say(&described(outcome))) {
        Ok(outcomes) => outcomes,
        Err(signal) => {
            say(&format!("stopped and saved; go on with: ntm train --resume {parent}"));
            return Ok(ExitCode::from(128 + signal as u8));
        }
    };
    let summary = study.summarise(outcomes)?;
    print(&summary_table(&summary, study.recipe.solved.metric))?;
    say(&format!("next: tensorboard --logdir {parent}"));
    match summary.outcomes.iter().filter(|outcome| outcome.error.is_some()).count() {
        0 => Ok(ExitCode::SUCCESS),
        failed => bail!("{failed} of {count} seeds failed\nhint: go on with them by `ntm train --resume {parent}`"),
    }
}

/// A new study, or the one to go on with.
fn study(flags: &Train, jobs: usize) -> Result<(Study, PathBuf)> {
    let directory = flags.resume.clone().unwrap_or_else(|| directory(flags, "seeds"));
    let study = match (&flags.resume, &flags.seeds) {
        (None, Some(seeds)) => Study::create(&directory, recipe(flags, jobs.min(seeds.0.len()))?.0, seeds.0.clone())?,
        _ => {
            let mut study = Study::open(&directory)?;
            change(&mut study.recipe, flags)?;
            study.recipe.check_memory(jobs.min(study.seeds.len()))?;
            study.save()?;
            study
        }
    };
    Ok((study, directory))
}

/// The run of one seed, from its beginning or from where it stopped.
fn start(study: &Study, seed: u64, flags: &Train, choice: &Choice) -> Result<Start> {
    let directory = study.run_directory(seed);
    if !Run::is_in(&directory) {
        let recipe = study.recipe_of(seed);
        let (source, engine) = (Source::open(&recipe.task)?, choice.engine(&recipe)?);
        let run = Run::create(&directory, &recipe, &choice.words())?;
        return Ok(Start::Train(Box::new((Trainer::new(recipe, source, engine, choice.device), run))));
    }
    let (lock, checkpoint) = hold(&directory, |recipe| {
        recipe.training = study.recipe_of(seed).training;
        Ok(())
    })?;
    if checkpoint.finished() {
        return Ok(Start::Finished(checkpoint.progress));
    }
    let machine = as_begun(&flags.machine, &checkpoint);
    let choice = Choice::new(&machine, 1)?.for_recipe(&machine, &checkpoint.recipe)?;
    let (source, engine) = (Source::open(&checkpoint.recipe.task)?, choice.engine(&checkpoint.recipe)?);
    let run = Run::resume(&directory, lock, &checkpoint, &choice.words())?;
    Ok(Start::Train(Box::new((Trainer::restore(&checkpoint, source, engine, choice.device), run))))
}

fn described(outcome: &Outcome) -> String {
    let Outcome { seed, solved, sequences, seconds, error, .. } = outcome;
    match (error, solved) {
        (Some(error), _) => format!("seed {seed}: {error}"),
        (None, None) => format!("seed {seed}: not solved in {sequences} sequences, {seconds:.1} s"),
        (None, Some(at)) => {
            format!("seed {seed}: solved after {} sequences, {:.1} s, of {sequences}", at.sequences, at.seconds)
        }
    }
}

/// A row a seed with the metric that the recipe is judged by, then how many were solved and when.
fn summary_table(summary: &Summary, metric: Metric) -> String {
    let points: Vec<&Point> = summary
        .outcomes
        .iter()
        .max_by_key(|outcome| outcome.results.len())
        .map_or(vec![], |outcome| outcome.results.iter().map(|score| &score.point).collect());
    // a point has an axis a line: a grid of two axes would make the columns too wide
    let axes = points.first().map_or(0, |point| point.values().count()).max(1);
    let mut rows: Vec<Vec<String>> = (0..axes)
        .map(|line| {
            let own = if line + 1 == axes { ["seed", "sequences", "seconds"] } else { [""; 3] };
            let axis = |point: &&Point| match point.values().nth(line) {
                Some((axis, value)) => format!("{} {value}", axis.name()),
                None => "all".to_string(),
            };
            own.map(str::to_string).into_iter().chain(points.iter().map(axis)).collect()
        })
        .collect();
    for Outcome { seed, solved, results, .. } in &summary.outcomes {
        let (sequences, seconds) = match solved {
            Some(solved) => (solved.sequences.to_string(), format!("{:.1}", solved.seconds)),
            None => ("-".to_string(), "-".to_string()),
        };
        let figures = results.iter().map(|score| format!("{:.4}", metric.of(score)));
        rows.push([seed.to_string(), sequences, seconds].into_iter().chain(figures).collect());
    }
    let title = format!("sequences and seconds until solved, and {} at the end", metrics::column(&metric.to_string()));
    let mut when = String::new();
    if let (Some(sequences), Some(seconds)) = (&summary.sequences, &summary.seconds) {
        let Spread { median, least, most } = sequences;
        when = format!(", after a median of {median:.0} sequences ({least:.0} to {most:.0})");
        let Spread { median, least, most } = seconds;
        when += &format!(" and {median:.1} s ({least:.1} to {most:.1})");
    }
    format!("{title}\n{}\nsolved: {} of {}{when}\n", table(&rows, axes), summary.solved, summary.seeds)
}
