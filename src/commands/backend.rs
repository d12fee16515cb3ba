//! What the machine flags come to: a device, an engine, threads, and how much is trained side by side.

use super::usage;
use crate::checkpoint::Checkpoint;
use crate::cli::{EngineChoice, Machine};
use crate::composed::Composed;
use crate::config::Recipe;
use crate::device;
use crate::distributed::Place;
use crate::engine::Engine;
use crate::fused::{self, CudaFused, Fused};
use crate::tasks::Source;
use crate::terminal::say;
use crate::train::{Ahead, Jobs, Trainer};
use anyhow::Result;
use tch::Device;

/// What the machine flags come to.
#[derive(Clone)]
pub struct Choice {
    pub device: Device,
    why: &'static str,
    pub fused: bool,
    pub threads: usize,
    /// Of this job on this machine.
    processes: usize,
}

impl Choice {
    /// `threads` where no flag says how many.
    pub fn new(flags: &Machine, place: Option<&Place>, threads: usize) -> Result<Choice> {
        let (own, processes) = place.map_or((Some(0), 1), |place| (place.local_rank, place.local_size));
        let (device, why) = match (flags.device.as_str(), flags.began_on.as_str()) {
            ("auto", "cpu") => (Device::Cpu, "where it began"),
            _ => device::choose(&flags.device, own, processes)?,
        };
        let fused = flags.engine != EngineChoice::Composed;
        let threads = flags.threads.map_or(threads, usize::from);
        Ok(Choice { device, why, fused, threads, processes }.with_threads())
    }

    /// The choice for what, in words, goes side by side: many small machines at once are what cores are for, and a card only if it
    /// is asked for, or was.
    pub fn side_by_side(flags: &Machine, place: Option<&Place>, threads: usize, why: &'static str) -> Result<Choice> {
        if flags.device != "auto" || flags.began_on == "cuda" {
            return Choice::new(flags, place, threads);
        }
        let on_cores = Machine { device: "cpu".to_string(), ..flags.clone() };
        Ok(Choice { why, ..Choice::new(&on_cores, place, threads)? })
    }

    /// The choice for a recipe: where the fused engine cannot run it on a card, the CPU if the flags leave that open, else
    /// composed, unless they insist. One rank of a group says so.
    pub fn for_recipe(mut self, flags: &Machine, place: Option<&Place>, recipe: &Recipe) -> Result<Choice> {
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

    pub fn engine(&self, recipe: &Recipe) -> Result<Box<dyn Engine>> {
        let (x, y) = recipe.task.widths();
        Ok(match (self.fused, self.device) {
            (true, Device::Cuda(index)) => Box::new(CudaFused::on_card(&recipe.model, x, y, index)?),
            (true, _) => Box::new(Fused::<f32>::new(&recipe.model, x, y, self.threads)?),
            (false, _) => Box::new(Composed::new(&recipe.model, x, y)),
        })
    }

    /// Refuses by arithmetic what this machine cannot hold: an update of each of `runs` runs, of which this process has as many as
    /// any other here, with its part of a batch that `ranks` ranks share.
    pub fn check_memory(&self, recipe: &Recipe, runs: usize, ranks: usize) -> Result<()> {
        let sequences = recipe.training.batch_size.div_ceil(ranks);
        let (steps, widths) = (recipe.task.max_steps(), recipe.task.widths());
        let in_batches = |values: u128| values * steps as u128 * sequences as u128;
        let activations = match (self.device, self.fused) {
            (Device::Cpu, true) => fused::activations(&recipe.model, widths, steps, sequences, self.threads),
            (Device::Cpu, false) => in_batches(recipe.model.activations()),
            _ => 0, // they are on the card, which says itself when it is full
        };
        let batch = in_batches((widths.0 + 2 * widths.1 + 1) as u128); // with its logits
        recipe.check_memory([runs, self.processes], activations + batch)
    }

    /// Why starts of a run cannot be trained side by side, and the cure; none if they can.
    pub fn one_start(&self, recipe: &Recipe) -> Option<[&'static str; 2]> {
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
    pub fn starts(&self, jobs: Option<usize>, cores: usize, recipe: &Recipe) -> Result<usize> {
        let training = &recipe.training;
        let most = training.restart.times() as usize + 1;
        match (jobs, self.one_start(recipe)) {
            (Some(jobs), Some([why, cure])) if jobs > 1 => {
                usage(&format!("`--jobs {jobs}` is for several seeds or starts: {why}\nhint: {cure}"))
            }
            (Some(jobs), None) => Ok(jobs.min(most)),
            (None, None) if training.restart.until_solved() => {
                let fit = |starts: &usize| self.check_memory(recipe, *starts, 1).is_ok();
                let room = cores / self.threads.min(training.batch_size);
                Ok((2..=room.min(most)).rev().find(fit).unwrap_or(1))
            }
            _ => Ok(1),
        }
    }

    /// The choice for one of several starts at a time: no more threads than sequences in a batch.
    pub fn of_several(self, recipe: &Recipe) -> Choice {
        Choice { threads: self.threads.min(recipe.training.batch_size), ..self }.with_threads()
    }

    /// What trains a recipe, from its beginning or from a checkpoint of it. Jobs that are left train starts ahead.
    pub fn trainer(
        &self,
        recipe: &Recipe,
        checkpoint: Option<&Checkpoint>,
        source: Source,
        engine: Box<dyn Engine>,
        jobs: &Jobs,
    ) -> Result<Trainer> {
        let begun = checkpoint.map_or(0, |at| at.progress.restarts);
        let several = jobs.count > 1 && self.one_start(recipe).is_none();
        let ahead = if several { Some(self.ahead(recipe, &source, begun, jobs)?) } else { None };
        let trainer = match checkpoint {
            None => Trainer::new(recipe.clone(), source, engine, self.device),
            Some(checkpoint) => Trainer::restore(checkpoint, source, engine, self.device),
        };
        Ok(trainer.with_ahead(ahead))
    }

    /// The starts of a run after number `start`.
    fn ahead(&self, recipe: &Recipe, source: &Source, start: u32, jobs: &Jobs) -> Result<Ahead> {
        let (choice, source) = (self.clone(), source.clone());
        let parts = move |recipe: &Recipe| Ok((source.clone(), choice.engine(recipe)?));
        Ahead::of(recipe, start, jobs, Box::new(parts))
    }

    /// `fused` or `composed`.
    pub fn engine_name(&self) -> &'static str {
        if self.fused { "fused" } else { "composed" }
    }

    pub fn words(&self) -> String {
        let engine = self.engine_name();
        format!("{engine} engine on {} ({}), threads: {}", device::name(self.device), self.why, self.threads)
    }
}

/// The machine flags of what goes on: unless they name an engine or a device, those of its begin, to go on bit for bit. Empty where
/// that is not known.
pub fn as_begun(flags: &Machine, engine: &str, device: &str) -> Machine {
    let mut flags = Machine { began_on: device.to_string(), ..flags.clone() };
    if flags.engine == EngineChoice::Auto && engine == "composed" {
        flags.engine = EngineChoice::Composed;
    }
    flags
}

/// The cores that are this process's: its part of the machine's.
pub fn cores(place: Option<&Place>) -> usize {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    (all / place.map_or(1, |place| place.local_size)).max(1)
}

/// The engine that runs a trained recipe in a process alone, and what it runs on.
pub fn machine(flags: &Machine, recipe: &Recipe) -> Result<(Box<dyn Engine>, Choice)> {
    let choice = Choice::new(flags, None, cores(None))?.for_recipe(flags, None, recipe)?;
    Ok((choice.engine(recipe)?, choice))
}
