//! `ntm train`: begins a run, or goes on with one, in this process or as a rank of several.

use super::backend::{Backend, Wanted, cores, one_start};
use super::resolve::{
    Resolved, apply_flags_of_resume, asked_alike, in_recipe, resolve_recipe, run_directory, say_of_rows, sequences,
};
use super::signals::stop_signal;
use super::{study, usage};
use crate::checkpoint::Checkpoint;
use crate::cli::Train;
use crate::config::Recipe;
use crate::display::Display;
use crate::distributed::{Group, Lost, Place, launched};
use crate::engine::Engine;
use crate::lock::Lock;
use crate::optim::Schedule;
use crate::progress::TrainedBy;
use crate::run::Run;
use crate::simd;
use crate::study::Study;
use crate::tasks::{Source, Task};
use crate::terminal::{say, shell_path};
use crate::train::{Ended, Jobs, NotFinite, Trainer};
use anyhow::{Context, Error, Result, anyhow, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How long after a signal the same wish may come again: from `timeout`, which signals its group, too, and where a
/// terminal closes, from the shell and from the system.
const REPEATED: Duration = Duration::from_millis(500);
/// Of a launched process: from the scheduler, from the terminal, and from torchrun, which kills after that time.
const REPEATED_BY_LAUNCHER: Duration = Duration::from_secs(30);

pub fn run(flags: Train) -> Result<ExitCode> {
    let place = Place::from_environment()?;
    let study = flags.seeds.is_some() || flags.resume.as_deref().is_some_and(Study::is_in); // which answers above its bars
    let stop = stop_signal(if launched() { REPEATED_BY_LAUNCHER } else { REPEATED }, !study)?;
    let Some(place) = place else { return train(&flags, Group::alone(), None, stop) };
    let joined = Group::join(&place, Duration::from_secs(flags.peer_timeout.into()));
    let trained = joined.and_then(|group| train(&flags, group, Some(&place), stop));
    trained.map_err(|error| error.context(format!("rank {}", place.rank)))
}

/// Trains as one rank of a group; `place`: where it stands, if it is not alone.
fn train(
    flags: &Train,
    group: Group,
    place: Option<&Place>,
    stop: impl Fn() -> Option<i32> + Sync,
) -> Result<ExitCode> {
    let seeds = flags.seeds.as_ref().map(|seeds| &seeds.0);
    // first, since from here on the ranks must make the same calls
    let asked = json!({ "resume": flags.resume.is_some(), "seeds": seeds, "jobs": flags.jobs });
    group.agree("what to do", Ok(()), |()| asked.clone())?;
    let goes_on = || Ok(flags.resume.as_deref().is_some_and(Study::is_in));
    if flags.seeds.is_some() || flags.resume.is_some() && group.leader_finds(goes_on)? {
        return study::run(flags, &group, place, stop);
    }
    if flags.jobs.is_some() && !group.is_alone() {
        let refused =
            usage("`--jobs` in a job of several processes is for several seeds\nhint: name them with --seeds");
        return group.agree("jobs", refused, |_| Value::Null);
    }
    let leads = group.leads();
    let Some((mut trainer, mut run)) = start(flags, group, place)? else { return Ok(ExitCode::SUCCESS) };
    let total = trainer.progress.expected(&trainer.recipe);
    let mut display = if leads { Display::new(total, trainer.progress.sequences) } else { Display::Silent };
    let ended = trainer.run(run.as_mut(), &mut display, stop);
    display.close();
    let ended =
        ended.map_err(|error| anyhow!("training stopped: {error:#}{}", hints(&error, &trainer, run.as_ref())))?;
    match (ended, run) {
        (Ended::Stopped(signal), None) => Ok(ExitCode::from(128 + signal as u8)),
        (Ended::Finished, None) => Ok(ExitCode::SUCCESS),
        (Ended::Finished, Some(run)) => {
            let (sequences, seconds) = (trainer.progress.sequences, trainer.progress.seconds);
            let directory = shell_path(run.directory());
            say(&format!("trained {sequences} sequences in {seconds:.1} s; the run is in {directory}"));
            let measured = if trainer.progress.best.is_some() { directory.clone() } else { shell_path(&run.latest()) };
            say(&format!("next: ntm eval --checkpoint {measured}"));
            say(&format!("      tensorboard --logdir {directory}"));
            Ok(ExitCode::SUCCESS)
        }
        (Ended::Stopped(signal), Some(run)) => {
            let (sequences, directory) = (trainer.progress.sequences, shell_path(run.directory()));
            say(&format!("stopped and saved after {sequences} sequences; go on with: ntm train --resume {directory}"));
            Ok(ExitCode::from(128 + signal as u8))
        }
    }
}

/// What to do after an error that has ended a run.
fn hints(error: &Error, trainer: &Trainer, run: Option<&Run>) -> String {
    let Some(run) = run else {
        return "\nhint: the messages of the other ranks may say why; rank 0 has the checkpoint".to_string();
    };
    let (latest, directory) = (run.latest(), shell_path(run.directory()));
    let mut hints = String::new();
    if latest.exists() {
        hints += &format!("\nhint: the last good checkpoint is {}", latest.display());
    }
    if error.is::<Lost>() {
        hints += &format!(
            "\nhint: the messages of the other ranks may say why; then the same with `ntm train --resume {directory}`"
        );
    }
    if error.is::<NotFinite>() {
        hints += "\nhint: a new run with a lower rate or clip may help";
        if trainer.recipe.training.on_nonfinite.rollbacks() == 0 {
            hints += &format!(", or `ntm train --resume {directory} --on-nonfinite rollback`, which halves the rate");
        }
    }
    hints
}

/// What to train and where the rank that leads logs it; none if there is nothing left to do.
fn start(flags: &Train, mut group: Group, place: Option<&Place>) -> Result<Option<(Trainer, Option<Run>)>> {
    let asked = if flags.resume.is_some() { Ok(None) } else { resolve_recipe(flags).map(Some) };
    let asked = group.agree("command line", asked, |asked| asked_alike(flags, asked))?;
    let seed = asked.as_ref().map_or(0, |asked| asked.recipe.training.seed);
    let directory = flags.resume.clone().unwrap_or_else(|| run_directory(flags, &seed.to_string()));
    let begun = Begun::in_directory(&directory, flags, &group, asked)?;
    if let Some(checkpoint) = begun.checkpoint.as_ref().filter(|checkpoint| checkpoint.ended()) {
        let solved = checkpoint.progress.stops_solved(&checkpoint.recipe);
        let cure = if solved { "solved, and its recipe stops there" } else { "more with --sequences" };
        let (shown, seen) = (directory.display(), checkpoint.progress.sequences);
        group.say(&format!("{shown} is finished: {seen} sequences seen; {cure}"));
        return Ok(None);
    }
    let prepared = Prepared::new(flags, place, &group, begun);
    let Prepared { begun, mut source, engine, backend, starts } = group.agree("run", prepared, Prepared::alike)?;
    if backend.device.is_cuda() {
        group.use_cards(backend.device)?;
    }
    group.on_leader(|| say_of_rows(&begun.recipe, &mut source))?;
    let Begun { recipe, weights, checkpoint, lock, .. } = begun;
    let words = words(&backend, group.size, starts);
    let run = group.on_leader(|| match (&checkpoint, lock) {
        (Some(checkpoint), Some(lock)) => resume_log(flags, &directory, checkpoint, lock, &words),
        _ => new_log(&directory, &recipe, &words),
    })?;
    let jobs = Jobs::of(starts);
    jobs.take(); // the run's own
    let mut trainer = backend.trainer(&recipe, checkpoint.as_ref(), source, engine, &jobs)?;
    if let Some(weights) = &weights {
        trainer.begin_with(weights);
    }
    Ok(Some((trainer.in_group(group), run)))
}

/// What a run begins with, or goes on from.
struct Begun {
    recipe: Recipe,
    /// The sequences, where they have been read.
    source: Option<Source>,
    /// What a new run begins with, where they are not drawn.
    weights: Option<Vec<f32>>,
    /// None where the run is new.
    checkpoint: Option<Checkpoint>,
    /// On the directory of a run that goes on; the rank that leads holds it.
    lock: Option<Lock>,
}

impl Begun {
    /// Reads the run in a directory, to go on with it, or claims the directory for a new one. `asked`: the recipe of
    /// the command line, unless that resumes.
    fn in_directory(directory: &Path, flags: &Train, group: &Group, asked: Option<Resolved>) -> Result<Begun> {
        // torchrun starts a job that failed again by the same command line, which goes on then
        let goes_on = || Ok(Run::is_in(directory) && group.goes_on_with(directory)?);
        let asked = match asked {
            Some(Resolved { recipe, source, weights }) if !group.leader_finds(goes_on)? => {
                group.on_leader(|| {
                    Study::ensure_unoccupied(directory)?;
                    group.claim(directory)
                })?;
                return Ok(Begun { recipe, source: Some(source), weights, checkpoint: None, lock: None });
            }
            asked => asked,
        };
        let mut led = None;
        let saved = group.share(|| {
            let (lock, saved, checkpoint) = Run::lock_and_read(directory)?;
            led = Some((lock, checkpoint));
            Ok(saved)
        })?;
        let (lock, mut checkpoint) = match led {
            Some((lock, checkpoint)) => (Some(lock), checkpoint),
            None => (None, Run::read(directory, &saved)?),
        };
        let mut recipe = checkpoint.recipe.clone();
        match &asked {
            None => apply_flags_of_resume(&mut recipe, flags)?,
            Some(asked) if asked.recipe == recipe => (),
            Some(_) => {
                let shown = directory.display();
                bail!("`{shown}` holds a run of another recipe\nhint: name another directory with --run-dir")
            }
        }
        let before = checkpoint.recipe.training.sequences;
        checkpoint.go_on_as(recipe.clone());
        if checkpoint.ended() && checkpoint.progress.stops_solved(&recipe) && recipe.training.sequences != before {
            let run = shell_path(directory);
            bail!(
                "`--sequences {}`: the run in `{}` is solved, and its recipe stops there\n\
                 hint: `ntm train {run}/recipe.json --from {run} --set solved.stop=false --run-dir DIR` trains on from it",
                recipe.training.sequences,
                directory.display()
            );
        }
        check_total(&checkpoint)?;
        let source = asked.map(|asked| asked.source);
        Ok(Begun { recipe, source, weights: None, checkpoint: Some(checkpoint), lock })
    }
}

/// Refuses fewer sequences than a run has seen.
fn check_total(checkpoint: &Checkpoint) -> Result<()> {
    let seen = checkpoint.progress.step_of_start();
    if checkpoint.recipe.updates() < seen {
        bail!(
            "`--sequences {}` is less than the {} that this run has seen{}\nhint: name a larger total, or leave it out",
            checkpoint.recipe.training.sequences,
            seen * checkpoint.recipe.training.batch_size as u64,
            if checkpoint.progress.restarts > 0 { " since it last began anew" } else { "" }
        );
    }
    Ok(())
}

/// A run, and what it is trained with.
struct Prepared {
    begun: Begun,
    source: Source,
    engine: Box<dyn Engine>,
    backend: Backend,
    /// How many are trained at a time.
    starts: usize,
}

impl Prepared {
    fn new(flags: &Train, place: Option<&Place>, group: &Group, mut begun: Begun) -> Result<Prepared> {
        let read = begun.source.take();
        let Begun { recipe, checkpoint, .. } = &begun;
        let batch = recipe.training.batch_size;
        if batch < group.size {
            bail!(
                "a batch of {batch} cannot be shared among {} ranks\n\
                 hint: `--set training.batch_size=N` of at least that, or fewer ranks",
                group.size
            );
        }
        let source = sequences(recipe, read, flags.resume.as_deref())?;
        let jobs = flags.jobs.map(usize::from);
        let each = (cores(place) / jobs.unwrap_or(1)).max(1);
        let began = checkpoint.as_ref().map(|checkpoint| checkpoint.progress.trained_by);
        let wanted = Wanted::to_go_on(&flags.compute, began);
        // several starts have more of the cores than of a card; a run that has begun stays where it is
        let training = &recipe.training;
        let many = jobs.map_or(training.restart.until_solved() && cores(place) > 1, |jobs| jobs > 1);
        let several = many && one_start(recipe).is_none() && group.is_alone();
        let backend = if several && checkpoint.is_none() {
            Backend::side_by_side(&wanted, place, each, "starts can go side by side on the cores")?
        } else {
            Backend::new(&wanted, place, each)?
        };
        let backend = backend.for_recipe(recipe, batch.div_ceil(group.size))?;
        let starts = if group.is_alone() { backend.starts(jobs, cores(place), recipe)? } else { 1 };
        let backend = if starts > 1 { backend.of_several(recipe) } else { backend };
        backend.check_memory(recipe, starts, group.size).with_context(|| in_recipe(flags))?;
        let engine = backend.engine(recipe)?;
        Ok(Prepared { begun, source, engine, backend, starts })
    }

    /// What all ranks of a group must have alike.
    fn alike(&self) -> Value {
        let TrainedBy { engine, device } = self.backend.trains_as();
        json!({ "recipe": self.begun.recipe, "engine": engine, "device": device, "fused multiply-add": simd::has_fma() })
    }
}

/// What trains a run, in words.
fn words(backend: &Backend, ranks: usize, starts: usize) -> String {
    let mut words = backend.words();
    for (what, count) in [("ranks", ranks), ("starts at a time", starts)] {
        if count > 1 {
            words += &format!(", {what}: {count}");
        }
    }
    words
}

/// Where a new run is logged. `words`: what trains it.
fn new_log(directory: &Path, recipe: &Recipe, words: &str) -> Result<Run> {
    say(words);
    let run = Run::create(directory, recipe, words)?;
    let from = match &recipe.task {
        Task::Sequences(task) => &task.train,
        task => task.name(),
    };
    let starts = match recipe.training.restart.times() {
        0 => String::new(),
        times => format!(", from up to {} starts,", times + 1),
    };
    let (updates, batch) = (recipe.updates(), recipe.training.batch_size as u64);
    let total = updates * batch;
    let whole = total == recipe.training.sequences;
    let batches = if whole { String::new() } else { format!(" ({updates} updates of {batch})") };
    say(&format!("training {total} sequences{batches} of {from}{starts} into {}", directory.display()));
    Ok(run)
}

/// Where a run that goes on is logged.
fn resume_log(flags: &Train, directory: &Path, checkpoint: &Checkpoint, lock: Lock, words: &str) -> Result<Run> {
    say(words);
    let run = Run::resume(directory, lock, checkpoint, words)?;
    let Checkpoint { recipe, progress, .. } = checkpoint;
    say(&format!("going on with {} at {} sequences", directory.display(), progress.sequences));
    let longer = flags.sequences.filter(|_| flags.resume.is_some());
    let falls = recipe.training.schedule != Schedule::Constant && !checkpoint.finished();
    if let (Some(sequences), true) = (longer, falls) {
        let rate = progress.learning_rate(recipe, progress.step_of_start() + 1);
        say(&format!("the learning rate falls over all of the {sequences} sequences: it goes on at {rate:.2e}"));
    }
    Ok(run)
}
