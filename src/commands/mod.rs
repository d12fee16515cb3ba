//! One file a subcommand: flags in, library calls, words out.

mod eval;
mod export;
mod info;
mod pictures;
mod plot;
mod predict;
mod shell;
mod signals;
mod study;
mod train;

use crate::checkpoint::Checkpoint;
use crate::cli::{Axes, Command, EngineChoice, Machine, Trained};
use crate::config::Recipe;
use crate::device;
use crate::distributed::Place;
use crate::engine::Engine;
use crate::fused::{CudaFused, Fused};
use crate::limits::check;
use crate::model::{Composed, with_rows};
use crate::run::Run;
use crate::tasks::{Axis, Grid, MOST, Source, Task};
use crate::terminal::say;
use crate::train::{Ahead, Jobs};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tch::Device;

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

/// The file that `--checkpoint` names: itself, or the best machine of a run directory, its latest where none was evaluated.
fn machine_file(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    match Run::machines_in(path).into_iter().find(|file| file.exists()) {
        Some(file) => Ok(file),
        None => bail!(
            "`{}` is a directory without a checkpoint\nhint: name a .safetensors file, or the directory of a run",
            path.display()
        ),
    }
}

/// The machine that the flags name, with as many memory rows as they say, and its file. To be run, not trained on: the
/// optimizer's state is not resized.
fn trained(flags: &Trained) -> Result<(PathBuf, Checkpoint)> {
    let file = machine_file(&flags.checkpoint)?;
    let mut checkpoint = Checkpoint::load(&file)?;
    if let Some(rows) = flags.rows {
        let (x, y) = (checkpoint.recipe.task.input_width(), checkpoint.recipe.task.output_width());
        (checkpoint.recipe.model, checkpoint.theta) =
            with_rows(&checkpoint.recipe.model, x, y, &checkpoint.theta, rows)
                .with_context(|| format!("`--rows {rows}`"))?;
    }
    Ok((file, checkpoint))
}

/// The values that the flags name, on the axes of a task; `defaults` for the axes they don't.
fn grid(flags: &Axes, task: &Task, mut defaults: Grid) -> Result<Grid> {
    let axes = task.axes();
    for (axis, values) in [
        (Axis::Length, &flags.lengths),
        (Axis::Repeats, &flags.repeats),
        (Axis::Items, &flags.items),
        (Axis::Vectors, &flags.vectors),
    ] {
        if values.is_empty() {
            continue;
        }
        let flag = format!("--{}", axis.plural());
        let Some(varying) = axes.iter().find(|varying| varying.axis == axis) else {
            let names: Vec<String> = axes.iter().map(|varying| format!("--{}", varying.axis.plural())).collect();
            match names.is_empty() {
                true => bail!("`{flag}`: {} has no axes, its sequences are those of its file", task.name()),
                false => bail!("`{flag}` is no axis of {}\nhint: it has {}", task.name(), names.join(", ")),
            }
        };
        for &value in values {
            check(&flag, value, varying.least, MOST)?;
        }
        defaults.insert(axis, values.clone());
    }
    Ok(defaults)
}

/// What the machine flags come to.
#[derive(Clone)]
struct Choice {
    device: Device,
    why: &'static str,
    fused: bool,
    threads: usize,
}

impl Choice {
    /// `threads` where no flag says how many.
    fn new(flags: &Machine, place: Option<&Place>, threads: usize) -> Result<Choice> {
        let (own, processes) = place.map_or((Some(0), 1), |place| (place.local_rank, place.local_size));
        let (device, why) = match flags.began_on_cpu {
            true => (Device::Cpu, "where it began"),
            false => device::choose(&flags.device, own, processes)?,
        };
        let fused = flags.engine != EngineChoice::Composed;
        Ok(Choice { device, why, fused, threads: flags.threads.map_or(threads, usize::from) }.with_threads())
    }

    /// The choice for what, in words, goes side by side: many small machines at once are what cores are for, and a card only if it
    /// is asked for.
    fn side_by_side(flags: &Machine, place: Option<&Place>, threads: usize, why: &'static str) -> Result<Choice> {
        if flags.device != "auto" {
            return Choice::new(flags, place, threads);
        }
        let on_cores = Machine { device: "cpu".to_string(), ..flags.clone() };
        Ok(Choice { why, ..Choice::new(&on_cores, place, threads)? })
    }

    /// The choice for a recipe: where the fused engine cannot run it on a card, the CPU if the flags leave that open, else
    /// composed, unless they insist. One rank of a group says so.
    fn for_recipe(mut self, flags: &Machine, place: Option<&Place>, recipe: &Recipe) -> Result<Choice> {
        let (true, Device::Cuda(_), Err(error)) = (self.fused, self.device, self.engine(recipe)) else {
            return Ok(self);
        };
        let device = device::name(self.device);
        if flags.engine == EngineChoice::Fused {
            return Err(error.context(format!("the fused engine cannot run on {device}")));
        }
        if place.is_none_or(|place| place.rank == 0) {
            say(&format!("no fused engine on {device}: {error:#}"));
        }
        match flags.device.as_str() {
            "auto" => (self.device, self.why) = (Device::Cpu, "the fused engine cannot run on the card"),
            _ => self.fused = false,
        }
        Ok(self.with_threads())
    }

    /// The fused engine has threads of its own, and libtorch's would only wait beside them.
    fn with_threads(self) -> Choice {
        tch::set_num_threads(if self.fused { 1 } else { self.threads as i32 });
        self
    }

    fn engine(&self, recipe: &Recipe) -> Result<Box<dyn Engine>> {
        let (x, y) = (recipe.task.input_width(), recipe.task.output_width());
        Ok(match (self.fused, self.device) {
            (true, Device::Cuda(index)) => Box::new(CudaFused::on_card(&recipe.model, x, y, index)?),
            (true, _) => Box::new(Fused::<f32>::new(&recipe.model, x, y, self.threads)?),
            (false, _) => Box::new(Composed::new(&recipe.model, x, y)),
        })
    }

    /// Why starts of a run cannot be trained side by side, and the cure; none if they can.
    fn one_start(&self, recipe: &Recipe) -> Option<[&'static str; 2]> {
        let training = &recipe.training;
        if training.restart.times() == 0 {
            Some(["this recipe has one start (`training.restart`)", "name seeds with --seeds"])
        } else if training.on_nonfinite.rollbacks() > 0 {
            Some(["a start that may go back (`training.on_nonfinite`) has no other beside it", "`--on-nonfinite stop`"])
        } else if self.device.is_cuda() {
            Some(["starts train side by side on the CPU alone", "`--device cpu`"])
        } else {
            None
        }
    }

    /// How many starts of a run to train at a time: as many as `jobs` says, else as the cores have room for where most starts are
    /// expected to fail, which is where one must end solved. Refuses what cannot be.
    fn starts(&self, jobs: Option<usize>, cores: usize, recipe: &Recipe) -> Result<usize> {
        let training = &recipe.training;
        let most = training.restart.times() as usize + 1;
        match (jobs, self.one_start(recipe)) {
            (Some(jobs), Some([why, cure])) if jobs > 1 => {
                usage(&format!("`--jobs {jobs}` is for several seeds or starts: {why}\nhint: {cure}"))
            }
            (Some(jobs), None) => Ok(jobs.min(most)),
            (None, None) if training.restart.until_solved() => {
                let fit = |starts: &usize| recipe.check_memory(*starts).is_ok();
                let room = cores / self.threads.min(training.batch_size);
                Ok((2..=room.min(most)).rev().find(fit).unwrap_or(1))
            }
            _ => Ok(1),
        }
    }

    /// The choice for one of several starts at a time: no more threads than sequences in a batch.
    fn of_several(self, recipe: &Recipe) -> Choice {
        Choice { threads: self.threads.min(recipe.training.batch_size), ..self }.with_threads()
    }

    /// The starts of a run after number `start`, which take the jobs that are left.
    fn ahead(&self, recipe: &Recipe, start: u32, jobs: &Jobs) -> Result<Option<Ahead>> {
        if jobs.count == 1 {
            return Ok(None);
        }
        let choice = self.clone();
        let parts = move |recipe: &Recipe| Ok((Source::open(&recipe.task)?, choice.engine(recipe)?));
        Ahead::of(recipe, start, jobs, Box::new(parts)).map(Some)
    }

    fn words(&self) -> String {
        let engine = if self.fused { "fused" } else { "composed" };
        format!("{engine} engine on {} ({}), threads: {}", device::name(self.device), self.why, self.threads)
    }
}

/// The cores that are this process's: its part of the machine's.
fn cores(place: Option<&Place>) -> usize {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    (all / place.map_or(1, |place| place.local_size)).max(1)
}

/// The engine that runs a trained recipe in a process alone, and what it runs on.
fn machine(flags: &Machine, recipe: &Recipe) -> Result<(Box<dyn Engine>, Choice)> {
    let choice = Choice::new(flags, None, cores(None))?.for_recipe(flags, None, recipe)?;
    Ok((choice.engine(recipe)?, choice))
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

/// Such an error.
fn usage<T>(message: &str) -> Result<T> {
    Err(Usage(message.to_string()).into())
}
