//! What trains or runs a network: a device, an engine, threads, and how much of it side by side.

use super::usage;
use crate::checkpoint::Checkpoint;
use crate::cli::{Compute, EngineChoice};
use crate::composed::Composed;
use crate::config::Recipe;
use crate::device::{self, DeviceChoice, DeviceKind};
use crate::distributed::Place;
use crate::engine::{Engine, EngineKind};
use crate::fused::{self, CudaFused, Fused};
use crate::memory;
use crate::progress::TrainedBy;
use crate::tasks::Source;
use crate::terminal::say;
use crate::train::{Ahead, Jobs, Trainer};
use anyhow::Result;
use tch::Device;

/// Device, engine and threads as the flags ask for them.
#[derive(Clone)]
pub struct Wanted {
    device: DeviceChoice,
    engine: EngineChoice,
    threads: Option<usize>,
    /// Of what goes on. It counts where `device` is auto.
    began_on: Option<DeviceKind>,
}

impl Wanted {
    /// By the flags.
    pub fn new(flags: &Compute) -> Wanted {
        let threads = flags.threads.map(usize::from);
        Wanted { device: flags.device, engine: flags.engine, threads, began_on: None }
    }

    /// By the flags, and where they leave it open by what a run began with, so that it goes on bit for bit.
    pub fn to_go_on(flags: &Compute, began: Option<TrainedBy>) -> Wanted {
        let composed = began.is_some_and(|began| began.engine == EngineKind::Composed);
        let engine = if composed && flags.engine == EngineChoice::Auto { EngineChoice::Composed } else { flags.engine };
        Wanted { engine, began_on: began.map(|began| began.device), ..Wanted::new(flags) }
    }
}

/// The device, engine and number of threads that this process computes with, and why that device.
#[derive(Clone)]
pub struct Backend {
    wanted: Wanted,
    /// Whether this rank of a group is the one that says what happens.
    speaks: bool,
    pub device: Device,
    why: &'static str,
    engine: EngineKind,
    pub threads: usize,
    /// Of this job on this machine.
    processes: usize,
}

impl Backend {
    /// `threads`: as many as there are where none are wanted by number.
    pub fn new(wanted: &Wanted, place: Option<&Place>, threads: usize) -> Result<Backend> {
        let (own, processes) = place.map_or((Some(0), 1), |place| (place.local_rank, place.local_size));
        let (device, why) = match (wanted.device, wanted.began_on) {
            (DeviceChoice::Auto, Some(DeviceKind::Cpu)) => (Device::Cpu, "where it began"),
            _ => device::choose(wanted.device, own, processes)?,
        };
        let engine = match wanted.engine {
            EngineChoice::Composed => EngineKind::Composed,
            EngineChoice::Auto | EngineChoice::Fused => EngineKind::Fused,
        };
        let (threads, wanted) = (wanted.threads.unwrap_or(threads), wanted.clone());
        let speaks = place.is_none_or(|place| place.rank == 0);
        Ok(Backend { wanted, speaks, device, why, engine, threads, processes })
    }

    /// The backend for what, in words, goes side by side: many small machines at once are what cores are for, and a
    /// card only if it is asked for, or was.
    pub fn side_by_side(wanted: &Wanted, place: Option<&Place>, threads: usize, why: &'static str) -> Result<Backend> {
        if wanted.device != DeviceChoice::Auto || wanted.began_on == Some(DeviceKind::Cuda) {
            return Backend::new(wanted, place, threads);
        }
        let on_cores = Wanted { device: DeviceChoice::Cpu, ..*wanted };
        Ok(Backend { why, ..Backend::new(&on_cores, place, threads)? })
    }

    /// The backend for a recipe: where the fused engine cannot run it on a card, the CPU if that is left open, else
    /// composed unless fused is wanted. One rank of a group says so.
    /// `sequences`: of the largest batch.
    pub fn for_recipe(mut self, recipe: &Recipe, sequences: usize) -> Result<Backend> {
        let (EngineKind::Fused, Device::Cuda(index)) = (self.engine, self.device) else { return Ok(self) };
        let tried = CudaFused::on_card(recipe.network(), index).and_then(|mut engine| engine.prove(sequences));
        let Err(error) = tried else { return Ok(self) };
        let device = device::name(self.device);
        if self.wanted.engine == EngineChoice::Fused {
            return Err(error.context(format!("the fused engine cannot run on {device}")));
        }
        if self.speaks {
            say(&format!("no fused engine on {device}: {error:#}"));
        }
        match self.wanted.device {
            DeviceChoice::Auto => (self.device, self.why) = (Device::Cpu, "the fused engine cannot run on the card"),
            _ => self.engine = EngineKind::Composed,
        }
        Ok(self)
    }

    /// An engine for a recipe. Of libtorch's threads the process has as many as it needs: the fused engine has its own,
    /// and they would only wait beside them.
    pub fn engine(&self, recipe: &Recipe) -> Result<Box<dyn Engine>> {
        let network = recipe.network();
        tch::set_num_threads(if self.engine == EngineKind::Fused { 1 } else { self.threads as i32 });
        Ok(match (self.engine, self.device) {
            (EngineKind::Fused, Device::Cuda(index)) => Box::new(CudaFused::on_card(network, index)?),
            (EngineKind::Fused, _) => Box::new(Fused::<f32>::new(network, self.threads)?),
            (EngineKind::Composed, _) => Box::new(Composed::new(network)),
        })
    }

    /// Refuses by arithmetic what this machine cannot hold: an update of each of `runs` runs, of which this process has
    /// as many as any other here, with its part of a batch that `ranks` ranks share.
    pub fn check_memory(&self, recipe: &Recipe, runs: usize, ranks: usize) -> Result<()> {
        let sequences = recipe.training.batch_size.div_ceil(ranks);
        let (steps, widths) = (recipe.task.max_steps(), recipe.task.widths());
        let in_batches = |values: u128| values * steps as u128 * sequences as u128;
        let activations = match (self.device, self.engine) {
            (Device::Cpu, EngineKind::Fused) => fused::activations(recipe.network(), steps, sequences, self.threads),
            (Device::Cpu, EngineKind::Composed) => in_batches(recipe.model.activations()),
            _ => 0, // they are on the card, which says itself when it is full
        };
        let batch = in_batches((widths.0 + 2 * widths.1 + 1) as u128); // with its logits
        memory::check(recipe, runs, self.processes, activations + batch)
    }

    /// How many starts of a run to train at a time: as many as `jobs` says, else as the cores have room for where most
    /// starts are expected to fail, which is where one must end solved. Refuses what cannot be.
    pub fn starts(&self, jobs: Option<usize>, cores: usize, recipe: &Recipe) -> Result<usize> {
        let training = &recipe.training;
        let most = training.restart.times() as usize + 1;
        let here = self.device.is_cuda().then_some(["starts train side by side on the CPU alone", "`--device cpu`"]);
        match (jobs, one_start(recipe).or(here)) {
            (Some(jobs), Some([why, cure])) if jobs > 1 => {
                usage(&format!("`--jobs {jobs}` needs several seeds or starts: {why}\nhint: {cure}"))
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

    /// The backend for one of several starts at a time: no more threads than sequences in a batch.
    pub fn of_several(self, recipe: &Recipe) -> Backend {
        Backend { threads: self.threads.min(recipe.training.batch_size), ..self }
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
        let several = jobs.count > 1 && one_start(recipe).is_none();
        let ahead = if several { Some(self.ahead(recipe, &source, begun, jobs)?) } else { None };
        let trainer = match checkpoint {
            None => Trainer::new(recipe.clone(), source, engine, self.device),
            Some(checkpoint) => Trainer::restore(checkpoint, source, engine, self.device),
        };
        Ok(trainer.with_ahead(ahead))
    }

    /// The starts of a run after number `start`.
    fn ahead(&self, recipe: &Recipe, source: &Source, start: u32, jobs: &Jobs) -> Result<Ahead> {
        let (backend, source) = (self.clone(), source.clone());
        let parts = move |recipe: &Recipe| Ok((source.clone(), backend.engine(recipe)?));
        Ahead::of(recipe, start, jobs, Box::new(parts))
    }

    /// What a checkpoint will say of it.
    pub fn trains_as(&self) -> TrainedBy {
        TrainedBy { engine: self.engine, device: DeviceKind::of(self.device) }
    }

    pub fn words(&self) -> String {
        let (engine, device) = (self.engine, device::name(self.device));
        format!("{engine} engine on {device} ({}), threads: {}", self.why, self.threads)
    }
}

/// Why starts of a recipe cannot be trained side by side on any device, and the cure; none if they can.
pub fn one_start(recipe: &Recipe) -> Option<[&'static str; 2]> {
    let training = &recipe.training;
    if training.restart.times() == 0 {
        Some(["this recipe has one start (`training.restart`)", "name seeds with --seeds"])
    } else if training.on_nonfinite.rollbacks() > 0 {
        Some(["a start that may go back (`training.on_nonfinite`) has no other beside it", "`--on-nonfinite stop`"])
    } else {
        None
    }
}

/// The cores that are this process's: its part of the machine's.
pub fn cores(place: Option<&Place>) -> usize {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    (all / place.map_or(1, |place| place.local_size)).max(1)
}

/// The engine that runs a trained recipe in a process alone, and what it runs on.
pub fn open_engine(flags: &Compute, recipe: &Recipe) -> Result<(Box<dyn Engine>, Backend)> {
    let backend = Backend::new(&Wanted::new(flags), None, cores(None))?.for_recipe(recipe, 1)?;
    Ok((backend.engine(recipe)?, backend))
}
