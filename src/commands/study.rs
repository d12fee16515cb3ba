//! `ntm train --seeds`: many runs, one summary.

mod gather;

use super::backend::{Backend, Wanted, cores};
use super::resolve::{
    Resolved, apply_flags_of_resume, asked_alike, in_recipe, initial_weights, resolve_recipe, run_directory,
    say_of_rows, sequences,
};
use super::signals::{STOPPING, is_answered};
use super::tables::by_seed;
use crate::checkpoint::Checkpoint;
use crate::cli::Train;
use crate::config::{Metric, Recipe};
use crate::display::SideBySide;
use crate::distributed::{Group, Place};
use crate::metrics::{Score, Spread};
use crate::run::Run;
use crate::study::{Outcome, Study, Summary, Todo};
use crate::tasks::Source;
use crate::terminal::{print, say, shell_path};
use crate::train::{Jobs, Trainer};
use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
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
    let seeds = Seeds::prepare(flags, group, place)?;
    let (study, own) = (&seeds.study, seeds.study.dealt(group.rank, group.size));
    let (count, parent) = (study.seeds.len(), shell_path(&seeds.directory));
    let (jobs, ranks) = (seeds.jobs.count.min(own.len()), if group.is_alone() { "" } else { " on each rank" });
    let what = if count == 1 { "1 seed".to_string() } else { format!("{count} seeds, {jobs} at a time{ranks}") };
    group.say(&format!("training {what}, into {parent}"));
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
        let ended = study.run(&own, &seeds.jobs, |seed| seeds.start(seed), show, stop, said);
        gather::outcomes(group, study, ended, stop)
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
    say(&format!("next: ntm eval --checkpoint {parent}"));
    say(&format!("      ntm plot {parent}"));
    say(&format!("      tensorboard --logdir {parent}"));
    match summary.outcomes.iter().filter(|outcome| outcome.error.is_some()).count() {
        0 => Ok(ExitCode::SUCCESS),
        failed => bail!(
            "{failed} of {count} seeds failed\n\
             hint: once the causes are gone, `ntm train --resume {parent}` goes on with them; where a number is not finite, \
             `--on-nonfinite rollback` with it may help, or a new study with a lower rate"
        ),
    }
}

/// What trains a seed of a study.
fn backend_for(wanted: &Wanted, place: Option<&Place>, recipe: &Recipe) -> Result<Backend> {
    Backend::side_by_side(wanted, place, 1, SEEDS)?.for_recipe(recipe, recipe.training.batch_size)
}

/// A study that begins or goes on.
struct Opened {
    study: Study,
    directory: PathBuf,
    /// The sequences, and the weights that its seeds begin with, where they have been read.
    source: Option<Source>,
    weights: Option<Vec<f32>>,
}

impl Opened {
    /// Begins the study of the command line, or opens the one that it resumes. The rank that leads holds its lock.
    fn new(flags: &Train, group: &Group, place: Option<&Place>, backend: &Backend, jobs: usize) -> Result<Opened> {
        let begun = flags.seeds.as_ref().filter(|_| flags.resume.is_none());
        let asked = begun.map(|seeds| ask(flags, backend, jobs.min(seeds.0.len()))).transpose();
        let asked = group.agree("command line", asked, |asked| asked_alike(flags, asked))?;
        let (recipe, source, weights) = match asked {
            Some(Resolved { recipe, source, weights }) => (Some(recipe), Some(source), weights),
            None => (None, None, None),
        };
        let directory = flags.resume.clone().unwrap_or_else(|| run_directory(flags, "seeds"));
        let mut led = None;
        let saved = group.share(|| {
            let study = match (recipe, begun) {
                (Some(recipe), Some(seeds)) => begin(group, &directory, recipe, &seeds.0)?,
                _ => go_on(flags, place, &directory, jobs)?,
            };
            let saved = serde_json::to_vec(&study)?;
            led = Some(study);
            Ok(saved)
        })?;
        let study = led.map_or_else(|| Study::parse(&directory, &saved), Ok)?;
        Ok(Opened { study, directory, source, weights })
    }
}

/// The recipe of a new study, so many runs of which this process has at a time.
fn ask(flags: &Train, backend: &Backend, runs: usize) -> Result<Resolved> {
    if let Some(setting) = flags.set.iter().find(|setting| sets_seed(setting)) {
        bail!("`--set {setting}` and `--seeds` both name seeds\nhint: leave one of them out");
    }
    let resolved = resolve_recipe(flags)?;
    backend.check_memory(&resolved.recipe, runs, 1).with_context(|| in_recipe(flags))?;
    Ok(resolved)
}

/// Whether a setting names `training.seed`, by its path or within its section.
fn sets_seed(setting: &str) -> bool {
    let of_section = |value| serde_json::from_str::<Value>(value).is_ok_and(|value| value.get("seed").is_some());
    setting.split_once('=').is_some_and(|(key, value)| key == "training.seed" || key == "training" && of_section(value))
}

/// A new study in a directory; or the one there, where torchrun has started the job that began it again.
fn begin(group: &Group, directory: &Path, recipe: Recipe, seeds: &[u64]) -> Result<Study> {
    if Study::is_in(directory) && group.goes_on_with(directory)? {
        let study = Study::open(directory)?;
        if study.recipe != recipe || study.seeds != seeds {
            let shown = directory.display();
            bail!("`{shown}` holds another study\nhint: name another directory with --run-dir");
        }
        return Ok(study);
    }
    Study::ensure_unoccupied(directory)?; // first: what is claimed may be gone on with
    group.claim(directory)?;
    Study::create(directory, recipe, seeds.to_vec())
}

/// The study in a directory, changed as the flags of `--resume` say.
fn go_on(flags: &Train, place: Option<&Place>, directory: &Path, jobs: usize) -> Result<Study> {
    let mut study = Study::open(directory)?;
    let before = study.recipe.training.sequences;
    apply_flags_of_resume(&mut study.recipe, flags)?;
    if study.recipe.training.sequences != before {
        take_totals(&mut study, before)?;
    }
    study.add(flags.seeds.iter().flat_map(|seeds| &seeds.0));
    let wanted = Wanted::to_go_on(&flags.compute, study.trained_by);
    let backend = Backend::side_by_side(&wanted, place, 1, SEEDS)?;
    backend.check_memory(&study.recipe, jobs.min(study.seeds.len()), 1).with_context(|| in_recipe(flags))?;
    study.save()?;
    Ok(study)
}

/// Notes the totals that a study and its seeds had so far, in whose place the present one is. Refuses one that is less
/// than what a seed has seen, but for a seed that was made longer alone.
fn take_totals(study: &mut Study, before: u64) -> Result<()> {
    let total = study.recipe.training.sequences;
    study.sequences_before.push(before);
    let mut of_seeds = vec![];
    for &seed in &study.seeds {
        let directory = study.run_directory(seed);
        if !Run::is_in(&directory) {
            continue;
        }
        let Checkpoint { recipe, progress, .. } = Run::latest_of(&directory)?;
        let seen = progress.step_of_start() * recipe.training.batch_size as u64;
        if study.sequences_before.contains(&recipe.training.sequences)
            && study.recipe.updates() < progress.step_of_start()
        {
            bail!(
                "`--sequences {total}` is less than the {seen} that seed {seed} has seen\n\
                 hint: name a larger total, or leave it out"
            );
        }
        of_seeds.push(recipe.training.sequences);
    }
    study.sequences_before.extend(of_seeds);
    study.sequences_before.retain(|&before| before != total);
    study.sequences_before.sort_unstable();
    study.sequences_before.dedup();
    Ok(())
}

/// A study, and what its seeds are trained with.
struct Seeds<'a> {
    flags: &'a Train,
    place: Option<&'a Place>,
    study: Study,
    directory: PathBuf,
    backend: Backend,
    source: Source,
    /// What new seeds begin with, where that is not drawn; or why it cannot be read.
    weights: Result<Option<Vec<f32>>, String>,
    jobs: Jobs,
    /// For starts ahead of their turn: the jobs that no seed needs, where there may be any.
    ahead: Jobs,
}

impl<'a> Seeds<'a> {
    /// Begins a study, or opens the one to go on with.
    fn prepare(flags: &'a Train, group: &Group, place: Option<&'a Place>) -> Result<Seeds<'a>> {
        let alike = |backend: &Backend| json!(backend.trains_as());
        let backend =
            group.agree("machine", Backend::side_by_side(&Wanted::new(&flags.compute), place, 1, SEEDS), alike)?;
        let jobs = flags.jobs.map_or((cores(place) / backend.threads).max(1), usize::from);
        let Opened { mut study, directory, source, weights } = Opened::new(flags, group, place, &backend, jobs)?;
        let wanted = Wanted::to_go_on(&flags.compute, study.trained_by);
        let backend = backend_for(&wanted, place, &study.recipe);
        let backend = group.agree("engine", backend, alike)?;
        let first = study.seeds.first().map(|&seed| study.run_directory(seed));
        let resumed = first.as_deref().filter(|_| flags.resume.is_some());
        let mut source = group.agree("data", sequences(&study.recipe, source, resumed), |_| Value::Null)?;
        // where they are missing, seeds that have begun go on all the same
        let begun = study.seeds.iter().all(|&seed| Run::is_in(&study.run_directory(seed)));
        let weights = if weights.is_some() || begun { Ok(weights) } else { initial_weights(&study.recipe) };
        let weights = weights.map_err(|error| format!("{error:#}"));
        study.trained_by = Some(backend.trains_as());
        group.on_leader(|| {
            study.save()?;
            study.forget_summary()
        })?;
        group.say(&backend.words());
        group.on_leader(|| say_of_rows(&study.recipe, &mut source))?;
        let asked = flags.jobs.is_some() || study.recipe.training.restart.until_solved();
        let several = asked && backend.check_memory(&study.recipe, jobs, 1).is_ok();
        let jobs = Jobs::of(jobs);
        let ahead = if several { jobs.clone() } else { Jobs::of(1) };
        Ok(Seeds { flags, place, study, directory, backend, source, weights, jobs, ahead })
    }

    /// The run of one seed, from its beginning or from where it stopped.
    fn start(&self, seed: u64) -> Result<Todo> {
        let (directory, recipe) = (self.study.run_directory(seed), self.study.recipe_of(seed));
        if !Run::is_in(&directory) {
            let weights = self.weights.as_ref().map_err(|error| anyhow!("{error}"))?;
            let mut trainer = self.trainer(&self.backend, &recipe, None)?;
            if let Some(weights) = weights {
                trainer.begin_with(weights);
            }
            let run = Run::create(&directory, &recipe, &self.backend.words())?;
            return Ok(Todo::Train(Box::new((trainer, run))));
        }
        let (lock, _, mut checkpoint) = Run::lock_and_read(&directory)?;
        if !self.study.has(seed, &checkpoint.recipe) {
            bail!(
                "`{}` holds a run of another recipe than its study's\nhint: move it away, and this seed begins anew",
                directory.display()
            );
        }
        checkpoint.go_on_as(gone_on(recipe, &checkpoint, &self.study, self.flags));
        if checkpoint.ended() {
            return Ok(Todo::Finished(Box::new(checkpoint.progress)));
        }
        let Checkpoint { recipe, progress, .. } = &checkpoint;
        let wanted = Wanted::to_go_on(&self.flags.compute, Some(progress.trained_by));
        let backend = backend_for(&wanted, self.place, recipe)?;
        let trainer = self.trainer(&backend, recipe, Some(&checkpoint))?;
        let run = Run::resume(&directory, lock, &checkpoint, &backend.words())?;
        Ok(Todo::Train(Box::new((trainer, run))))
    }

    fn trainer(&self, backend: &Backend, recipe: &Recipe, checkpoint: Option<&Checkpoint>) -> Result<Trainer> {
        backend.trainer(recipe, checkpoint, self.source.clone(), backend.engine(recipe)?, &self.ahead)
    }
}

/// The recipe that a seed goes on with: that of its study, but for what `ntm train --resume` may have changed in the
/// seed alone.
fn gone_on(mut recipe: Recipe, checkpoint: &Checkpoint, study: &Study, flags: &Train) -> Recipe {
    let own = &checkpoint.recipe.training;
    let of_its_own = flags.sequences.is_none()
        && own.sequences > recipe.training.sequences
        && !study.sequences_before.contains(&own.sequences);
    if of_its_own || checkpoint.progress.step_of_start() > recipe.updates() {
        recipe.training.sequences = own.sequences;
    }
    if flags.on_nonfinite.is_none() && own.on_nonfinite.rollbacks() > recipe.training.on_nonfinite.rollbacks() {
        recipe.training.on_nonfinite = own.on_nonfinite.clone();
    }
    recipe
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
    let row = |outcome: &Outcome| {
        let (sequences, seconds) = match &outcome.solved {
            Some(solved) => (solved.sequences.to_string(), format!("{:.1}", solved.seconds)),
            None => ("-".to_string(), "-".to_string()),
        };
        vec![outcome.seed.to_string(), sequences, seconds]
    };
    let rows: Vec<(Vec<String>, &[Score])> =
        summary.outcomes.iter().map(|outcome| (row(outcome), &outcome.results[..])).collect();
    let table = by_seed(&["seed", "sequences", "seconds"], &rows, metric);
    let scores = summary.outcomes.iter().map(|outcome| &outcome.results[..]).max_by_key(|results| results.len());
    let said = metric.said(scores.unwrap_or_default());
    let title = format!("sequences and seconds until solved, and {said} at the end");
    let mut when = String::new();
    if let (Some(sequences), Some(seconds)) = (&summary.sequences, &summary.seconds) {
        let Spread { median, least, most } = sequences;
        let those = if summary.solved < summary.seeds { ", those" } else { "," };
        when = format!("{those} after a median of {median:.0} sequences ({least:.0} to {most:.0})");
        let Spread { median, least, most } = seconds;
        when += &format!(" and {median:.1} s ({least:.1} to {most:.1})");
    }
    format!("{title}\n{table}\nsolved: {} of {}{when}\n", summary.solved, summary.seeds)
}
