//! `ntm train --seeds`: many runs, one summary.

use super::train::{as_begun, directory, hold, recipe};
use super::{Choice, cores};
use crate::cli::Train;
use crate::display::{print, say};
use crate::metrics::Spread;
use crate::run::Run;
use crate::study::{Outcome, Start, Study, Summary};
use crate::tasks::Source;
use crate::train::Trainer;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

pub fn run(flags: &Train, stop: impl Fn() -> Option<i32> + Sync) -> Result<ExitCode> {
    let choice = Choice::new(&flags.machine, 1)?;
    let jobs = flags.jobs.map_or((cores() / choice.threads).max(1), usize::from);
    let (study, shown) = study(flags)?;
    let choice = choice.for_recipe(&flags.machine, &study.recipe)?;
    choice.say();
    let (count, parent) = (study.seeds.len(), shown.display());
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
    print(&table(&summary)?)?;
    say(&format!("next: tensorboard --logdir {parent}"));
    match summary.outcomes.iter().filter(|outcome| outcome.error.is_some()).count() {
        0 => Ok(ExitCode::SUCCESS),
        failed => bail!("{failed} of {count} seeds failed\nhint: go on with them by `ntm train --resume {parent}`"),
    }
}

/// A new study, or the one to go on with.
fn study(flags: &Train) -> Result<(Study, PathBuf)> {
    let directory = flags.resume.clone().unwrap_or_else(|| directory(flags, "seeds"));
    let study = match (&flags.resume, &flags.seeds) {
        (None, Some(seeds)) => Study::create(&directory, recipe(flags)?.0, seeds.0.clone())?,
        _ => {
            let mut study = Study::open(&directory)?;
            if let Some(sequences) = flags.sequences {
                study.recipe.training.sequences = sequences;
                study.recipe.validate().with_context(|| format!("`--sequences {sequences}`"))?;
                study.save()?;
            }
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
        let run = Run::create(&directory, &recipe)?;
        return Ok(Start::Train(Box::new((Trainer::new(recipe, source, engine, choice.device), run))));
    }
    let (lock, checkpoint) = hold(&directory, Some(study.recipe.training.sequences))?;
    if checkpoint.finished() {
        return Ok(Start::Finished(checkpoint.progress));
    }
    let machine = as_begun(&flags.machine, &checkpoint);
    let choice = Choice::new(&machine, 1)?.for_recipe(&machine, &checkpoint.recipe)?;
    let (source, engine) = (Source::open(&checkpoint.recipe.task)?, choice.engine(&checkpoint.recipe)?);
    let run = Run::resume(&directory, lock, &checkpoint)?;
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

/// A row a seed, then how many were solved and when.
fn table(summary: &Summary) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "{:>8} {:>12} {:>10}  at the end", "seed", "solved at", "seconds")?;
    for Outcome { seed, solved, results, error, .. } in &summary.outcomes {
        let (at, seconds) = match solved {
            Some(solved) => (solved.sequences.to_string(), format!("{:.1}", solved.seconds)),
            None => ("-".to_string(), "-".to_string()),
        };
        let end = error.clone().unwrap_or_else(|| at_the_end(results));
        writeln!(text, "{seed:>8} {at:>12} {seconds:>10}  {end}")?;
    }
    writeln!(text, "\nsolved: {} of {}", summary.solved, summary.seeds)?;
    for (name, spread) in [("sequences", &summary.sequences), ("seconds", &summary.seconds)] {
        if let Some(Spread { median, least, most }) = spread {
            writeln!(text, "{name}: median {median:.1}, {least:.1} to {most:.1}")?;
        }
    }
    Ok(text)
}

/// The figures of the last evaluation, a part for each point.
fn at_the_end(results: &Value) -> String {
    let shown = |(name, value): (&String, &Value)| match name.as_str() {
        "sequences" | "position_errors" => None,
        "bit_errors" => Some(format!("{:.2} wrong bits", value.as_f64()?)),
        "marker_errors" => Some(format!("{:.2} wrong markers", value.as_f64()?)),
        "loss_bits" => Some(format!("{:.2} bits", value.as_f64()?)),
        "optimum_bits" => Some(format!("optimum {:.2} bits", value.as_f64()?)),
        "squared_error" => Some(format!("squared error {:.6}", value.as_f64()?)),
        _ if value.is_u64() && name != "exact" => Some(format!("{name} {value}")),
        _ => None,
    };
    let point = |result: &Value| Some(result.as_object()?.iter().filter_map(shown).collect::<Vec<_>>().join(", "));
    results.as_array().map(|points| points.iter().filter_map(point).collect::<Vec<_>>().join("; ")).unwrap_or_default()
}
