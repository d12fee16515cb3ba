//! A seed study: one recipe trained from several seeds, side by side, a run directory each under one parent.

use crate::checkpoint::{Progress, Solved, write_atomically};
use crate::config::Recipe;
use crate::device;
use crate::display::{Display, shell_path};
use crate::metrics::{Score, Spread};
use crate::run::{Lock, Run, lock};
use crate::train::{Ended, Trainer};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

const STUDY: &str = "study.json";
const SUMMARY: &str = "summary.json";

/// What to train, as `study.json` has it.
#[derive(Serialize)]
pub struct Study {
    pub recipe: Recipe,
    pub seeds: Vec<u64>,
    #[serde(skip)]
    directory: PathBuf,
    #[serde(skip)]
    _lock: Lock,
}

/// What there is to do for a seed.
pub enum Start {
    Train(Box<(Trainer, Run)>),
    /// It has come to its end before.
    Finished(Progress),
}

/// How one seed went.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub seed: u64,
    pub solved: Option<Solved>,
    pub sequences: u64,
    pub seconds: f64,
    /// The last evaluation, as evaluations.jsonl has it.
    pub results: Vec<Score>,
    /// What ended the run before its time.
    pub error: Option<String>,
}

/// How all seeds went. Medians and ranges are over the seeds that were solved.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub seeds: usize,
    pub solved: usize,
    pub sequences: Option<Spread>,
    pub seconds: Option<Spread>,
    pub outcomes: Vec<Outcome>,
}

impl Study {
    /// A new study in a directory that must not hold one, nor a run.
    pub fn create(directory: &Path, recipe: Recipe, seeds: Vec<u64>) -> Result<Study> {
        let shown = directory.display();
        if Study::is_in(directory) || Run::is_in(directory) {
            bail!(
                "`{shown}` holds a run already\n\
                 hint: go on with it by `ntm train --resume {}`, or name another directory with --run-dir",
                shell_path(directory)
            );
        }
        fs::create_dir_all(directory).with_context(|| format!("cannot make study directory `{shown}`"))?;
        let study = Study { recipe, seeds, directory: directory.to_path_buf(), _lock: lock(directory)? };
        study.save()?;
        Ok(study)
    }

    /// Writes `study.json`.
    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        write_atomically(&self.directory.join(STUDY), text.as_bytes())
    }

    pub fn is_in(directory: &Path) -> bool {
        directory.join(STUDY).exists()
    }

    pub fn open(directory: &Path) -> Result<Study> {
        let path = directory.join(STUDY);
        let read = || -> Result<(Recipe, Vec<u64>)> {
            let mut saved: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
            Ok((Recipe::parse_saved(&saved["recipe"].to_string())?, serde_json::from_value(saved["seeds"].take())?))
        };
        let (recipe, seeds) = read().with_context(|| format!("cannot read study `{}`", path.display()))?;
        Ok(Study { recipe, seeds, directory: directory.to_path_buf(), _lock: lock(directory)? })
    }

    pub fn run_directory(&self, seed: u64) -> PathBuf {
        self.directory.join(format!("seed-{seed}"))
    }

    /// The recipe of one seed.
    pub fn recipe_of(&self, seed: u64) -> Recipe {
        let mut recipe = self.recipe.clone();
        recipe.training.seed = seed;
        recipe
    }

    /// Trains all seeds, `jobs` at a time, each from where it stopped; `start` says what there is to do for a seed,
    /// `said` sees each outcome as it comes. The outcomes in the order of the seeds, or the signal that asked to stop.
    pub fn run(
        &self,
        jobs: usize,
        start: impl Fn(u64) -> Result<Start> + Sync,
        stop: impl Fn() -> Option<i32> + Sync,
        said: impl Fn(&Outcome),
    ) -> Result<Vec<Outcome>, i32> {
        let next = AtomicUsize::new(0);
        let (sender, receiver) = mpsc::channel();
        let (mut outcomes, mut stopped) = (vec![], None);
        std::thread::scope(|scope| {
            for _ in 0..jobs.min(self.seeds.len()) {
                let (sender, next, start, stop) = (sender.clone(), &next, &start, &stop);
                scope.spawn(move || {
                    while let (None, Some(&seed)) = (stop(), self.seeds.get(next.fetch_add(1, Ordering::Relaxed))) {
                        let _ = sender.send(self.train(seed, start, stop)); // the receiver outlives the threads
                    }
                });
            }
            drop(sender);
            for (ended, outcome) in receiver {
                match ended {
                    Some(Ended::Stopped(signal)) => stopped = Some(signal),
                    _ => {
                        said(&outcome);
                        outcomes.push(outcome);
                    }
                }
            }
        });
        outcomes.sort_by_key(|outcome| self.seeds.iter().position(|seed| *seed == outcome.seed));
        match stopped.or_else(stop) {
            Some(signal) if outcomes.len() < self.seeds.len() => Err(signal),
            _ => Ok(outcomes),
        }
    }

    /// One seed to its end. A seed that fails does not end the others.
    fn train(
        &self,
        seed: u64,
        start: &impl Fn(u64) -> Result<Start>,
        stop: &impl Fn() -> Option<i32>,
    ) -> (Option<Ended>, Outcome) {
        let mut outcome = Outcome { seed, solved: None, sequences: 0, seconds: 0.0, results: vec![], error: None };
        let mut train = || -> Result<Ended> {
            let (ended, progress) = match start(seed)? {
                Start::Finished(progress) => (Ok(Ended::Finished), progress),
                Start::Train(both) => {
                    let (mut trainer, mut run) = *both;
                    (trainer.run(&mut run, &mut Display::Silent, stop), trainer.progress)
                }
            };
            outcome.results = Run::last_evaluation(&self.run_directory(seed));
            (outcome.solved, outcome.sequences, outcome.seconds) =
                (progress.solved, progress.sequences, progress.seconds);
            ended
        };
        match device::caught(&mut train) {
            Ok(ended) => (Some(ended), outcome),
            Err(error) => (None, Outcome { error: Some(format!("{error:#}")), ..outcome }),
        }
    }

    /// Writes `summary.json`.
    pub fn summarise(&self, outcomes: Vec<Outcome>) -> Result<Summary> {
        let solved = || outcomes.iter().filter_map(|outcome| outcome.solved.as_ref());
        let summary = Summary {
            seeds: outcomes.len(),
            solved: solved().count(),
            sequences: Spread::of(solved().map(|solved| solved.sequences as f64)),
            seconds: Spread::of(solved().map(|solved| solved.seconds)),
            outcomes,
        };
        let text = serde_json::to_string_pretty(&summary)? + "\n";
        write_atomically(&self.directory.join(SUMMARY), text.as_bytes())?;
        Ok(summary)
    }
}
