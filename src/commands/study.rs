//! `ntm train --seeds`: many runs, one summary.

mod gather;

use super::signals::{STOPPING, is_answered};
use super::train::{as_begun, asked, change, directory, recipe};
use super::{Choice, cores};
use crate::cli::Train;
use crate::config::{Metric, Recipe, Training};
use crate::device;
use crate::display::SideBySide;
use crate::distributed::{Group, Place};
use crate::metrics::{self, Spread};
use crate::run::Run;
use crate::study::{Outcome, Start, Study, Summary};
use crate::tasks::{Point, Source};
use crate::terminal::{print, say, shell_path, table};
use crate::train::{Jobs, Trainer};
use anyhow::{Result, bail};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Once;

/// Why a study trains on the CPU.
const SEEDS: &str = "seeds go side by side on the cores";

pub fn run(
    flags: &Train,
    group: &Group,
    place: Option<&Place>,
    stop: impl Fn() -> Option<i32> + Sync,
) -> Result<ExitCode> {
    let machine = |choice: &Choice| json!({ "device": device::kind(choice.device), "fused": choice.fused });
    let choice = group.agree("machine", Choice::side_by_side(&flags.machine, place, 1, SEEDS), machine)?;
    let jobs = flags.jobs.map_or((cores(place) / choice.threads).max(1), usize::from);
    let (study, shown) = study(flags, group, jobs)?;
    let (seeds, count, parent) = (study.dealt(group.rank, group.size), study.seeds.len(), shell_path(&shown));
    let choice = group.agree("engine", choice.for_recipe(&flags.machine, place, &study.recipe), machine)?;
    group.lead(|| study.forget_summary())?;
    group.say(&choice.words());
    let several = Jobs::of(jobs);
    // a job that no seed needs trains a start ahead
    let asked = flags.jobs.is_some() || study.recipe.training.restart.until_solved();
    let ahead = asked && choice.one_start(&study.recipe).is_none() && study.recipe.check_memory(jobs).is_ok();
    let ahead = if ahead { several.clone() } else { Jobs::of(1) };
    let at_a_time =
        format!("{} at a time{}", jobs.min(seeds.len()), if group.is_alone() { "" } else { " on each rank" });
    group.say(&format!("training {count} seeds, {at_a_time}, into {parent}"));
    let start = |seed| start(&study, seed, flags, place, &choice, &ahead);
    let rank = if group.is_alone() { String::new() } else { format!("rank {}, ", group.rank) };
    let label = |seed: u64| format!("{rank}seed {seed}");
    let width = study.seeds.iter().map(|&seed| label(seed).len()).max().unwrap_or(0);
    let (displays, told) = (SideBySide::new(group.is_alone(), width), Once::new());
    let stop = || {
        let signal = stop();
        if signal.is_some() && is_answered() {
            told.call_once(|| displays.line(STOPPING.trim()));
        }
        signal
    };
    let show = |trainer: &Trainer| {
        let (recipe, progress) = (&trainer.recipe, &trainer.progress);
        displays.display(label(recipe.training.seed), progress.expected(recipe), progress.sequences)
    };
    let said = |outcome: &Outcome| displays.line(&format!("{}: {}", label(outcome.seed), described(outcome)));
    let gathered = gather::beating(group, stop, |stop| {
        let ended = study.run(&seeds, &several, start, show, stop, said);
        gather::outcomes(group, &study, ended, stop)
    });
    let outcomes = match gathered? {
        gather::Gathered::All(outcomes) => outcomes,
        gather::Gathered::Elsewhere => return Ok(ExitCode::SUCCESS),
        gather::Gathered::Stopped(signal) => {
            group.say(&format!("stopped and saved; go on with: ntm train --resume {parent}"));
            return Ok(ExitCode::from(128 + signal as u8));
        }
    };
    let summary = study.summarise(outcomes)?;
    print(&summary_table(&summary, study.recipe.solved.threshold.metric))?;
    say(&format!("next: tensorboard --logdir {parent}"));
    match summary.outcomes.iter().filter(|outcome| outcome.error.is_some()).count() {
        0 => Ok(ExitCode::SUCCESS),
        failed => bail!("{failed} of {count} seeds failed\nhint: go on with them by `ntm train --resume {parent}`"),
    }
}

/// A new study, or the one to go on with. The rank that leads keeps it.
fn study(flags: &Train, group: &Group, jobs: usize) -> Result<(Study, PathBuf)> {
    let begun = match &flags.seeds {
        Some(seeds) => recipe(flags, jobs.min(seeds.0.len())).map(|(recipe, _)| Some((recipe, seeds.0.clone()))),
        None => Ok(None),
    };
    let described = |begun: &Option<(Recipe, Vec<u64>)>| asked(flags, begun.as_ref().map(|(recipe, _)| recipe));
    let begun = group.agree("command line", begun, described)?;
    let directory = flags.resume.clone().unwrap_or_else(|| directory(flags, "seeds"));
    let mut led = None;
    let saved = group.share(|| {
        let study = match begun {
            Some((recipe, seeds)) if Study::is_in(&directory) && group.goes_on_with(&directory)? => {
                let study = Study::open(&directory)?;
                if study.recipe != recipe || study.seeds != seeds {
                    let shown = directory.display();
                    bail!("`{shown}` holds another study\nhint: name another directory with --run-dir");
                }
                study
            }
            Some((recipe, seeds)) => {
                Study::free(&directory)?; // first: what is claimed may be gone on with
                group.claim(&directory)?;
                Study::create(&directory, recipe, seeds)?
            }
            None => {
                let mut study = Study::open(&directory)?;
                change(&mut study.recipe, flags)?;
                study.recipe.check_memory(jobs.min(study.seeds.len()))?;
                study.save()?;
                study
            }
        };
        let saved = serde_json::to_vec(&study)?;
        led = Some(study);
        Ok(saved)
    })?;
    let study = led.map_or_else(|| Study::parse(&directory, &saved), Ok)?;
    Ok((study, directory))
}

/// The run of one seed, from its beginning or from where it stopped.
fn start(
    study: &Study,
    seed: u64,
    flags: &Train,
    place: Option<&Place>,
    choice: &Choice,
    jobs: &Jobs,
) -> Result<Start> {
    let directory = study.run_directory(seed);
    if !Run::is_in(&directory) {
        let recipe = study.recipe_of(seed);
        let (source, engine) = (Source::open(&recipe.task)?, choice.engine(&recipe)?);
        let run = Run::create(&directory, &recipe, &choice.words())?;
        let ahead = choice.ahead(&recipe, 0, jobs)?;
        let trainer = Trainer::new(recipe, source, engine, choice.device).with_ahead(ahead);
        return Ok(Start::Train(Box::new((trainer, run))));
    }
    let (lock, saved) = Run::hold(&directory)?;
    let mut checkpoint = Run::read(&directory, &saved)?;
    let seen = checkpoint.progress.of_start() * checkpoint.recipe.training.batch_size as u64;
    let (own, training) = (checkpoint.recipe.training.sequences, study.recipe_of(seed).training);
    let sequences = if seen > training.sequences { own } else { training.sequences }; // it may have gone on by itself
    checkpoint.recipe.training = Training { sequences, ..training };
    if checkpoint.finished() {
        return Ok(Start::Finished(Box::new(checkpoint.progress)));
    }
    let machine = as_begun(&flags.machine, Some(&checkpoint));
    let choice = Choice::side_by_side(&machine, place, 1, SEEDS)?.for_recipe(&machine, place, &checkpoint.recipe)?;
    let (source, engine) = (Source::open(&checkpoint.recipe.task)?, choice.engine(&checkpoint.recipe)?);
    let run = Run::resume(&directory, lock, &checkpoint, &choice.words())?;
    let ahead = choice.ahead(&checkpoint.recipe, checkpoint.progress.restarts, jobs)?;
    let trainer = Trainer::restore(&checkpoint, source, engine, choice.device).with_ahead(ahead);
    Ok(Start::Train(Box::new((trainer, run))))
}

fn described(outcome: &Outcome) -> String {
    let Outcome { solved, sequences, seconds, restarts, error, .. } = outcome;
    let again = match restarts {
        0 => String::new(),
        1 => ", 1 restart".to_string(),
        more => format!(", {more} restarts"),
    };
    match (error, solved) {
        (Some(error), _) => error.clone(),
        (None, None) => format!("not solved in {sequences} sequences, {seconds:.1} s{again}"),
        (None, Some(at)) => {
            format!("solved after {} sequences, {:.1} s, of {sequences}{again}", at.sequences, at.seconds)
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
