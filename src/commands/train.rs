use super::signals::stop_signal;
use super::{machine, study, usage};
use crate::checkpoint::Checkpoint;
use crate::cli::{self, EngineChoice, Machine, Train};
use crate::config::{OnNonfinite, Recipe};
use crate::display::{Display, say, shell_path};
use crate::run::{Lock, Run};
use crate::study::Study;
use crate::tasks::{Source, Task};
use crate::train::{Ended, NotFinite, Trainer};
use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub fn run(flags: Train) -> Result<ExitCode> {
    let stop = stop_signal()?;
    if flags.seeds.is_some() || flags.resume.as_deref().is_some_and(Study::is_in) {
        return study::run(&flags, stop);
    }
    if flags.jobs.is_some() {
        return usage("`--jobs` is for several seeds\nhint: name them with --seeds");
    }
    let started = match &flags.resume {
        Some(directory) => resume(directory, &flags)?,
        None => Some(begin(&flags)?),
    };
    let Some((mut trainer, mut run)) = started else { return Ok(ExitCode::SUCCESS) };
    let directory = shell_path(run.directory());
    let total = trainer.recipe.updates() * trainer.recipe.training.batch_size as u64;
    let mut display = Display::new(total, trainer.progress.sequences);
    let ended = trainer.run(&mut run, &mut display, stop);
    display.close();
    let ended = ended.map_err(|error| {
        let latest = run.latest();
        let mut hint = String::new();
        if latest.exists() {
            hint += &format!("\nhint: the last good checkpoint is {}", latest.display());
        }
        if error.is::<NotFinite>() {
            hint += "\nhint: a new run with a lower rate or clip may help";
            if trainer.recipe.training.on_nonfinite.rollbacks() == 0 {
                hint +=
                    &format!(", or `ntm train --resume {directory} --on-nonfinite rollback`, which halves the rate");
            }
        }
        anyhow!("training stopped: {error:#}{hint}")
    })?;
    let seconds = trainer.progress.seconds;
    match ended {
        Ended::Finished => {
            say(&format!(
                "trained {} sequences in {seconds:.1} s; the run is in {directory}",
                trainer.progress.sequences
            ));
            let measured = if trainer.progress.best.is_some() { run.best() } else { run.latest() };
            say(&format!("next: ntm eval --checkpoint {}", shell_path(&measured)));
            say(&format!("      tensorboard --logdir {directory}"));
            Ok(ExitCode::SUCCESS)
        }
        Ended::Stopped(signal) => {
            say(&format!(
                "stopped and saved after {} sequences; go on with: ntm train --resume {directory}",
                trainer.progress.sequences
            ));
            Ok(ExitCode::from(128 + signal as u8))
        }
    }
}

/// The recipe that the flags make, and its sequences; `runs` of them are to be trained at a time.
pub fn recipe(flags: &Train, runs: usize) -> Result<(Recipe, Source)> {
    let mut settings = flags.set.clone();
    settings.extend(flags.seed.map(|seed| format!("training.seed={seed}")));
    let mut recipe = Recipe::load(&flags.recipe, &settings)?;
    change(&mut recipe, flags)?;
    let source = Source::open(&recipe.task)?;
    recipe.task = source.task.clone();
    recipe.validate()?;
    recipe.check_memory(runs).with_context(|| format!("in recipe `{}`", flags.recipe))?;
    Ok((recipe, source))
}

/// The changes that a run may also go on with.
pub fn change(recipe: &mut Recipe, flags: &Train) -> Result<()> {
    let training = &mut recipe.training;
    if let Some(choice) = flags.on_nonfinite {
        training.on_nonfinite = match choice {
            cli::OnNonfinite::Stop => OnNonfinite::Stop {},
            cli::OnNonfinite::Rollback if training.on_nonfinite.rollbacks() > 0 => training.on_nonfinite.clone(),
            cli::OnNonfinite::Rollback => OnNonfinite::Rollback { at_most: OnNonfinite::ROLLBACKS },
        };
    }
    if let Some(sequences) = flags.sequences {
        training.sequences = sequences;
        recipe.validate().with_context(|| format!("`--sequences {sequences}`"))?;
    }
    Ok(())
}

/// Where a run goes: as told, or `runs/<recipe>-<suffix>`.
pub fn directory(flags: &Train, suffix: &str) -> PathBuf {
    let name = PathBuf::from(&flags.recipe).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    flags.run_dir.clone().unwrap_or_else(|| PathBuf::from(format!("runs/{name}-{suffix}")))
}

fn begin(flags: &Train) -> Result<(Trainer, Run)> {
    let (recipe, source) = recipe(flags, 1)?;
    let directory = directory(flags, &recipe.training.seed.to_string());
    if Study::is_in(&directory) {
        bail!("`{}` holds a seed study already\nhint: name another directory with --run-dir", directory.display());
    }
    let (engine, choice) = machine(&flags.machine, &recipe)?;
    let run = Run::create(&directory, &recipe, &choice.words())?;
    let from = match &recipe.task {
        Task::Sequences(task) => &task.train,
        task => task.name(),
    };
    say(&format!("training {} sequences of {from} into {}", recipe.training.sequences, directory.display()));
    Ok((Trainer::new(recipe, source, engine, choice.device), run))
}

/// None if there is nothing left to do.
fn resume(directory: &Path, flags: &Train) -> Result<Option<(Trainer, Run)>> {
    let (lock, checkpoint) = hold(directory, |recipe| change(recipe, flags))?;
    let seen = checkpoint.progress.sequences;
    if checkpoint.finished() {
        let all = checkpoint.progress.step >= checkpoint.recipe.updates();
        let cure = if all { "more with --sequences" } else { "solved, and its recipe stops there" };
        say(&format!("{} is finished: {seen} sequences seen; {cure}", directory.display()));
        return Ok(None);
    }
    checkpoint.recipe.check_memory(1)?;
    let source = Source::open(&checkpoint.recipe.task)?;
    let (engine, choice) = machine(&as_begun(&flags.machine, &checkpoint), &checkpoint.recipe)?;
    let run = Run::resume(directory, lock, &checkpoint, &choice.words())?;
    say(&format!("going on with {} at {seen} sequences", directory.display()));
    Ok(Some((Trainer::restore(&checkpoint, source, engine, choice.device), run)))
}

/// The run in a directory, to be gone on with as changed.
pub fn hold(directory: &Path, change: impl FnOnce(&mut Recipe) -> Result<()>) -> Result<(Lock, Checkpoint)> {
    let (lock, mut checkpoint) = Run::hold(directory)?;
    change(&mut checkpoint.recipe)?;
    if checkpoint.recipe.updates() < checkpoint.progress.step {
        bail!(
            "`--sequences {}` is less than the {} that this run has seen\nhint: name a larger total, or leave it out",
            checkpoint.recipe.training.sequences,
            checkpoint.progress.sequences
        );
    }
    Ok((lock, checkpoint))
}

/// The machine flags of a run that goes on: unless they name an engine, the one that began, to go on bit for bit.
pub fn as_begun(flags: &Machine, checkpoint: &Checkpoint) -> Machine {
    let mut flags = flags.clone();
    if flags.engine == EngineChoice::Auto && checkpoint.progress.engine == "composed" {
        flags.engine = EngineChoice::Composed;
    }
    flags
}
