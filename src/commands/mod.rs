//! A file for each subcommand, and what they share: flags in, library calls, words out.

mod backend;
mod eval;
mod export;
mod info;
mod pictures;
mod plot;
mod predict;
mod resolve;
mod shell;
mod signals;
mod study;
mod tables;
mod train;

use crate::checkpoint::Checkpoint;
use crate::cli::{Axes, Command, Trained};
use crate::config::Recipe;
use crate::device;
use crate::limits::in_range;
use crate::model::{Config, MemoryStart, with_rows};
use crate::run::Run;
use crate::study::Study;
use crate::tasks::{Grid, MOST, Point, Source, Task};
use crate::terminal::say;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub fn run(command: Command) -> Result<ExitCode> {
    if !matches!(command, Command::Train(_)) {
        // SAFETY: restores the default action. `ntm info | head -1` then ends quietly, where `println!` would panic.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    device::guarded(|| match command {
        Command::Train(flags) => train::run(flags),
        Command::Eval(flags) => eval::run(flags).map(|()| ExitCode::SUCCESS),
        Command::Predict(flags) => predict::run(flags).map(|()| ExitCode::SUCCESS),
        Command::Plot(flags) => plot::run(flags).map(|()| ExitCode::SUCCESS),
        Command::Export(flags) => export::run(flags).map(|()| ExitCode::SUCCESS),
        Command::Info(flags) => info::run(flags).map(|()| ExitCode::SUCCESS),
        Command::Completions(flags) => shell::completions(flags).map(|()| ExitCode::SUCCESS),
        Command::Man(flags) => shell::man(flags).map(|()| ExitCode::SUCCESS),
    })
}

/// The file that `--checkpoint` names: itself, or of a run directory the best machine, the latest if that is wanted or
/// none was evaluated.
fn checkpoint_file(path: &Path, latest: bool) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    match Run::checkpoint_in(path, latest) {
        Some(file) => Ok(file),
        None if Study::is_in(path) => bail!(
            "`{}` holds a study of several seeds\nhint: name the directory of one of them, seed-N in it",
            path.display()
        ),
        None if Run::checkpoint_in(path, false).is_some() => bail!(
            "the run in `{}` has lost its latest checkpoint\nhint: without --latest, its best machine is taken",
            path.display()
        ),
        None => bail!(
            "`{}` is a directory without a checkpoint\n\
             hint: name a .safetensors file, or the directory of a run (for `ntm eval` also of a study)",
            path.display()
        ),
    }
}

/// The machine that the flags name, with as many memory rows as they say, and its file.
fn trained(flags: &Trained) -> Result<(PathBuf, Checkpoint)> {
    let (file, checkpoint) = machine_at(&flags.checkpoint, flags.latest)?;
    Ok((file, sized(checkpoint, flags)?))
}

/// The machine that a file or the directory of a run stands for, and its file; says which of a run's it is.
fn machine_at(path: &Path, latest: bool) -> Result<(PathBuf, Checkpoint)> {
    let file = checkpoint_file(path, latest)?;
    if latest && !path.is_dir() {
        bail!("`--latest` takes the last machine of a run's directory, `{}` is a file", file.display());
    }
    let checkpoint = Checkpoint::load(&file)?;
    if path.is_dir() {
        let (which, more) = if latest {
            ("latest machine", "")
        } else if file == Run::latest_in(path) {
            ("latest machine, since it has no best", "")
        } else if checkpoint.finished() {
            ("best machine", "")
        } else {
            ("best machine", "; --latest takes the last")
        };
        say(&format!("`{}`: its {which}, of update {}{more}", path.display(), checkpoint.progress.step));
    }
    Ok((file, checkpoint))
}

/// A machine with as many memory rows as the flags say.
fn sized(mut checkpoint: Checkpoint, flags: &Trained) -> Result<Checkpoint> {
    if let Some(rows) = flags.rows {
        resize(&mut checkpoint, rows).with_context(|| format!("`--rows {rows}`"))?;
    }
    Ok(checkpoint)
}

/// Gives a machine so many memory rows. To be run or begun with, not gone on with: the optimizer's state is not
/// resized.
fn resize(checkpoint: &mut Checkpoint, rows: usize) -> Result<()> {
    let Checkpoint { recipe, theta, .. } = checkpoint;
    (recipe.model, *theta) = with_rows(recipe.network(), theta, rows)?;
    Ok(())
}

/// A word where more goes in before the first answer than the memory has rows, of a machine that takes others. Copy
/// needs a row for its end marker, too.
fn too_few_rows(recipe: &Recipe, points: &[Point], source: &mut Source, seed: u64) -> Result<Option<String>> {
    let Config::Ntm(ntm) = &recipe.model else { return Ok(None) };
    if ntm.init.memory != MemoryStart::Constant || recipe.task.axes().is_empty() {
        return Ok(None);
    }
    let (rows, mut found) = (ntm.memory.rows, vec![]);
    for point in points {
        if source.evaluation_steps(point) <= rows {
            continue;
        }
        let batch = source.evaluation_batch(seed, point, 0, 1)?;
        let before = batch.mask.iter().take_while(|mask| **mask == 0.0).count();
        if before > rows {
            found.push((before, point));
        }
    }
    let others = match found.len() {
        0 => return Ok(None),
        1 => String::new(),
        2 => " (and another point)".to_string(),
        count => format!(" (and {} other points)", count - 1),
    };
    let (before, point) = &found[0];
    Ok(Some(format!("{point}{others}: {before} input steps before the first answer, but only {rows} rows")))
}

/// The values that the flags name, on the axes of a task; `defaults` for the axes they don't.
fn grid(flags: &Axes, task: &Task, mut defaults: Grid) -> Result<Grid> {
    let axes = task.axes();
    for (axis, values) in flags.given() {
        let flag = format!("--{}", axis.plural());
        let Some(varying) = axes.iter().find(|varying| varying.axis == axis) else {
            let names: Vec<String> = axes.iter().map(|varying| format!("--{}", varying.axis.plural())).collect();
            if names.is_empty() {
                bail!("`{flag}`: {} has no axes, its sequences are those of its file", task.name());
            }
            bail!("`{flag}` is no axis of {}\nhint: it has {}", task.name(), names.join(", "));
        };
        for &value in values {
            in_range(&flag, value, varying.least, MOST)?;
        }
        defaults.insert(axis, values.clone());
    }
    Ok(defaults)
}

/// A command line that is wrong by itself, whatever its files hold: exit code 2, as clap has it.
#[derive(Debug)]
pub struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The error for a command line that is wrong by itself.
fn usage<T>(message: &str) -> Result<T> {
    Err(Usage(message.to_string()).into())
}
