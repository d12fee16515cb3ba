use super::machine;
use crate::cli::{EngineChoice, Train};
use crate::config::Recipe;
use crate::display::{Display, say};
use crate::run::Run;
use crate::tasks::{Source, Task};
use crate::train::{Ended, Trainer};
use anyhow::{Context, Result, anyhow, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub fn run(flags: Train) -> Result<ExitCode> {
    let stop = stop_flag()?;
    let started = match &flags.resume {
        Some(directory) => resume(directory, &flags)?,
        None => Some(begin(&flags)?),
    };
    let Some((mut trainer, mut run)) = started else { return Ok(ExitCode::SUCCESS) };
    let directory = run.directory().display().to_string();
    let total = trainer.recipe.updates() * trainer.recipe.training.batch_size as u64;
    let mut display = Display::new(total, trainer.progress.sequences);
    let signal = || Some(stop.load(Ordering::Relaxed) as i32).filter(|&signal| signal != 0);
    let ended = trainer.run(&mut run, &mut display, signal);
    display.close();
    let ended = ended.map_err(|error| {
        let latest = run.latest().display().to_string();
        anyhow!("training stopped: {error:#}\nhint: the last good checkpoint is {latest}")
    })?;
    let seconds = trainer.progress.seconds;
    match ended {
        Ended::Finished => {
            say(&format!(
                "trained {} sequences in {seconds:.1} s; the run is in {directory}",
                trainer.progress.sequences
            ));
            let measured = if trainer.progress.best.is_some() { run.best() } else { run.latest() };
            say(&format!("next: ntm eval --checkpoint {}", measured.display()));
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

fn begin(flags: &Train) -> Result<(Trainer, Run)> {
    let mut settings = flags.set.clone();
    settings.extend(flags.seed.map(|seed| format!("training.seed={seed}")));
    settings.extend(flags.sequences.map(|sequences| format!("training.sequences={sequences}")));
    let mut recipe = Recipe::load(&flags.recipe, &settings)?;
    let source = Source::open(&recipe.task)?;
    recipe.task = source.task.clone();
    recipe.validate()?;
    let directory = match &flags.run_dir {
        Some(directory) => directory.clone(),
        None => {
            let name = PathBuf::from(&flags.recipe).file_stem().unwrap_or_default().to_string_lossy().into_owned();
            PathBuf::from(format!("runs/{name}-{}", recipe.training.seed))
        }
    };
    let (engine, device) = machine(&flags.machine, &recipe)?;
    let run = Run::create(&directory, &recipe)?;
    let from = match &recipe.task {
        Task::Sequences(task) => &task.train,
        task => task.name(),
    };
    say(&format!("training {} sequences of {from} into {}", recipe.training.sequences, directory.display()));
    Ok((Trainer::new(recipe, source, engine, device), run))
}

/// None if there is nothing left to do.
fn resume(directory: &Path, flags: &Train) -> Result<Option<(Trainer, Run)>> {
    let mut checkpoint = Run::last_checkpoint(directory)?;
    if let Some(sequences) = flags.sequences {
        checkpoint.recipe.training.sequences = sequences;
        checkpoint.recipe.validate().with_context(|| format!("`--sequences {sequences}`"))?;
    }
    let (wanted, seen) = (checkpoint.recipe.updates(), checkpoint.progress.sequences);
    if wanted < checkpoint.progress.step {
        bail!(
            "`--sequences {}` is less than the {seen} that this run has seen\nhint: name a larger total, or leave it out",
            checkpoint.recipe.training.sequences
        );
    }
    if wanted == checkpoint.progress.step {
        say(&format!("{} is finished: {seen} sequences seen; more with --sequences", directory.display()));
        return Ok(None);
    }
    let source = Source::open(&checkpoint.recipe.task)?;
    let mut flags = flags.machine.clone();
    if flags.engine == EngineChoice::Auto && checkpoint.progress.engine == "composed" {
        flags.engine = EngineChoice::Composed; // to go on bit for bit, with the engine that began
    }
    let (engine, device) = machine(&flags, &checkpoint.recipe)?;
    let run = Run::resume(directory, &checkpoint)?;
    say(&format!("going on with {} at {seen} sequences", directory.display()));
    Ok(Some((Trainer::restore(&checkpoint, source, engine, device), run)))
}

/// Holds the number of the first SIGINT, SIGTERM or SIGHUP; a second one ends the process at once.
fn stop_flag() -> Result<Arc<AtomicUsize>> {
    let stop = Arc::new(AtomicUsize::new(0));
    let armed = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !ignored(signal)) {
        flag::register_conditional_shutdown(signal, 128 + signal, armed.clone())?; // before arming: the first passes
        flag::register(signal, armed.clone())?;
        flag::register_usize(signal, stop.clone(), signal as usize)?;
    }
    Ok(stop)
}

/// Whether this process was started with the signal ignored, as by nohup; then it stays so.
fn ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks for the present action only; the struct is plain data, zeros are a valid value.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
