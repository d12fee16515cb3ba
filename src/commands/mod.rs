//! One file a subcommand: flags in, library calls, words out.

mod eval;
mod export;
mod info;
mod pictures;
mod plot;
mod shell;
mod signals;
mod study;
mod train;

use crate::cli::{Axes, Command, EngineChoice, Machine};
use crate::config::Recipe;
use crate::device;
use crate::display::say;
use crate::engine::Engine;
use crate::fused::Fused;
use crate::limits::check;
use crate::model::Composed;
use crate::tasks::{Axis, Grid, MOST, Task};
use anyhow::{Result, bail};
use std::process::ExitCode;
use tch::Device;

pub fn run(command: Command) -> Result<ExitCode> {
    if !matches!(command, Command::Train(_)) {
        // SAFETY: restores the default action. `ntm info | head -1` then ends quietly, where `println!` would panic.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    match command {
        Command::Train(flags) => train::run(flags),
        Command::Eval(flags) => eval::run(flags).map(|()| ExitCode::SUCCESS),
        Command::Plot(flags) => plot::run(flags).map(|()| ExitCode::SUCCESS),
        Command::Export(flags) => export::run(flags).map(|()| ExitCode::SUCCESS),
        Command::Info(flags) => info::run(flags).map(|()| ExitCode::SUCCESS),
        Command::Completions(flags) => shell::completions(flags).map(|()| ExitCode::SUCCESS),
        Command::Man(flags) => shell::man(flags).map(|()| ExitCode::SUCCESS),
    }
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
struct Choice {
    device: Device,
    why: &'static str,
    fused: bool,
    threads: usize,
}

impl Choice {
    /// With `--device auto` and no wish for the composed engine, that is the fused engine on the CPU: faster than the
    /// composed one on a CUDA device. `threads` where no flag says how many.
    fn new(flags: &Machine, threads: usize) -> Result<Choice> {
        let wants_composed = flags.engine == EngineChoice::Composed;
        let (device, why) = match flags.device.as_str() {
            "auto" if !wants_composed => (Device::Cpu, "where the fused engine runs"),
            device => device::choose(device)?,
        };
        let on_cuda = matches!(device, Device::Cuda(_));
        if on_cuda && flags.engine == EngineChoice::Fused {
            bail!("the fused engine runs on the CPU only so far\nhint: `--device cpu`, or `--engine composed`");
        }
        let (fused, threads) = (!wants_composed && !on_cuda, flags.threads.map_or(threads, usize::from));
        // the fused engine has threads of its own, and libtorch's would only wait beside them
        tch::set_num_threads(if fused { 1 } else { threads as i32 });
        Ok(Choice { device, why, fused, threads })
    }

    fn engine(&self, recipe: &Recipe) -> Result<Box<dyn Engine>> {
        let (x, y) = (recipe.task.input_width(), recipe.task.output_width());
        Ok(match self.fused {
            true => Box::new(Fused::<f32>::new(&recipe.model, x, y, self.threads)?),
            false => Box::new(Composed::new(&recipe.model, x, y)),
        })
    }

    fn words(&self) -> String {
        let engine = if self.fused { "fused" } else { "composed" };
        format!("{engine} engine on {} ({}), threads: {}", device::name(self.device), self.why, self.threads)
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The engine for one recipe, and what it runs on.
fn machine(flags: &Machine, recipe: &Recipe) -> Result<(Box<dyn Engine>, Choice)> {
    let choice = Choice::new(flags, cores())?;
    let engine = choice.engine(recipe)?;
    say(&choice.words());
    Ok((engine, choice))
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
