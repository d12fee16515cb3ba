//! A seed study: one recipe trained from several seeds, side by side, a run directory each under one parent.

use crate::config::Recipe;
use crate::device;
use crate::display::Display;
use crate::files::{clear_unfinished, remove, write_atomically};
use crate::lock::{Lock, occupied};
use crate::metrics::{Score, Spread};
use crate::progress::{Progress, SolvedAt, TrainedBy};
use crate::run::Run;
use crate::train::{Ended, Jobs, Trainer};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
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
    /// Totals of `training.sequences` that it had earlier: a seed with one of them has not been told of the present one
    /// yet.
    pub sequences_before: Vec<u64>,
    /// What it was last trained with; none before it is.
    #[serde(flatten)]
    pub trained_by: Option<TrainedBy>,
    #[serde(skip)]
    directory: PathBuf,
    /// Held by the rank that leads.
    #[serde(skip)]
    _lock: Option<Lock>,
}

/// What there is to do for a seed.
pub enum Todo {
    Train(Box<(Trainer, Run)>),
    /// It has come to its end before.
    Finished(Box<Progress>),
}

/// How one seed went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub seed: u64,
    pub solved: Option<SolvedAt>,
    pub sequences: u64,
    pub seconds: f64,
    /// How often it has begun anew.
    pub restarts: u32,
    /// The last evaluation, as evaluations.jsonl has it.
    pub results: Vec<Score>,
    /// What ended the run before its time.
    pub error: Option<String>,
}

impl Outcome {
    /// Of a seed that has not begun.
    pub fn of(seed: u64) -> Outcome {
        Outcome { seed, solved: None, sequences: 0, seconds: 0.0, restarts: 0, results: vec![], error: None }
    }
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
        Study::ensure_unoccupied(directory)?;
        fs::create_dir_all(directory).with_context(|| format!("cannot make study directory `{shown}`"))?;
        let lock = Lock::take(directory)?;
        Study::ensure_unoccupied(directory)?; // again: another process may have begun and ended in between
        let study = Study { _lock: Some(lock), ..Study::of(directory, recipe, seeds) };
        study.save()?;
        Ok(study)
    }

    fn of(directory: &Path, recipe: Recipe, seeds: Vec<u64>) -> Study {
        let (sequences_before, directory) = (vec![], directory.to_path_buf());
        Study { recipe, seeds, sequences_before, trained_by: None, directory, _lock: None }
    }

    /// Adds seeds to those that it has.
    pub fn add<'a>(&mut self, seeds: impl Iterator<Item = &'a u64>) {
        self.seeds.extend(seeds);
        self.seeds.sort_unstable();
        self.seeds.dedup();
    }

    /// An error if a directory holds a study or a run.
    pub fn ensure_unoccupied(directory: &Path) -> Result<()> {
        if Study::is_in(directory) {
            Err(occupied(directory, "a seed study"))
        } else {
            Run::ensure_unoccupied(directory)
        }
    }

    /// Writes `study.json`.
    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        write_atomically(&self.directory.join(STUDY), text.as_bytes())
    }

    /// Takes away the summary of an earlier end, which holds no longer once a seed trains on.
    pub fn forget_summary(&self) -> Result<()> {
        remove(&self.directory.join(SUMMARY))
    }

    pub fn is_in(directory: &Path) -> bool {
        directory.join(STUDY).exists()
    }

    /// The study in a directory.
    pub fn open(directory: &Path) -> Result<Study> {
        if !Study::is_in(directory) {
            let shown = directory.display();
            bail!(
                "`{shown}` holds no study\nhint: `--resume` with `--seeds` adds seeds to a study that `--seeds` began"
            );
        }
        let lock = Lock::take(directory)?; // first, or another process could go on with it in between
        clear_unfinished(directory, &[STUDY, SUMMARY]);
        Ok(Study { _lock: Some(lock), ..Study::read(directory)? })
    }

    /// The study in a directory, to be looked at.
    pub fn read(directory: &Path) -> Result<Study> {
        let path = directory.join(STUDY);
        let read = || Study::parse(directory, &fs::read(&path)?);
        read().with_context(|| format!("cannot read study `{}`", path.display()))
    }

    /// A study that another process, which shares its `study.json`, leads.
    pub fn parse(directory: &Path, saved: &[u8]) -> Result<Study> {
        let mut saved: Value = serde_json::from_slice(saved)?;
        let recipe = Recipe::parse(&saved["recipe"].to_string(), &[])?;
        let seeds = serde_json::from_value(saved["seeds"].take()).context("its `seeds`")?;
        let before = serde_json::from_value(saved["sequences_before"].take());
        let sequences_before = before.context("its `sequences_before`")?;
        let trained = saved.get("engine").or(saved.get("device")).is_some(); // or it was stopped before it was
        let trained_by = trained.then(|| serde_json::from_value(saved)).transpose().context("its engine and device")?;
        Ok(Study { sequences_before, trained_by, ..Study::of(directory, recipe, seeds) })
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

    /// Whether a recipe is that of one seed, but for what `ntm train --resume` may change in it alone: its total, and what
    /// it does after a number that is not finite.
    pub fn has(&self, seed: u64, recipe: &Recipe) -> bool {
        let (own, mut of_study) = (&recipe.training, self.recipe_of(seed));
        of_study.training.sequences = own.sequences;
        of_study.training.on_nonfinite = own.on_nonfinite.clone();
        *recipe == of_study
    }

    /// The seeds that fall to a rank of so many.
    pub fn dealt(&self, rank: usize, ranks: usize) -> Vec<u64> {
        self.seeds.iter().skip(rank).step_by(ranks).copied().collect()
    }

    /// Trains some of the seeds, `jobs` at a time, each from where it stopped; `start` says what there is to do for a
    /// seed, `show` what shows its progress, `said` sees each outcome as it comes. The outcomes, or the signal that
    /// asked to stop.
    pub fn run(
        &self,
        seeds: &[u64],
        jobs: &Jobs,
        start: impl Fn(u64) -> Result<Todo> + Sync,
        show: impl Fn(&Trainer) -> Display + Sync,
        stop: impl Fn() -> Option<i32> + Sync,
        said: impl Fn(&Outcome),
    ) -> Result<Vec<Outcome>, i32> {
        let next = AtomicUsize::new(0);
        let (sender, receiver) = mpsc::channel();
        let (mut outcomes, mut stopped) = (vec![], None);
        std::thread::scope(|scope| {
            let together = jobs.count.min(seeds.len());
            (0..together).for_each(|_| _ = jobs.take()); // before any starts of theirs take them
            for _ in 0..together {
                let (sender, next, start, show, stop) = (sender.clone(), &next, &start, &show, &stop);
                scope.spawn(move || {
                    while let (None, Some(&seed)) = (stop(), seeds.get(next.fetch_add(1, Ordering::Relaxed))) {
                        let _ = sender.send(self.train(seed, start, show, stop)); // the receiver outlives the threads
                    }
                    jobs.give_back();
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
        match stopped.or_else(stop) {
            Some(signal) if outcomes.len() < seeds.len() => Err(signal),
            _ => Ok(outcomes),
        }
    }

    /// One seed to its end. A seed that fails does not end the others.
    fn train(
        &self,
        seed: u64,
        start: &impl Fn(u64) -> Result<Todo>,
        show: &impl Fn(&Trainer) -> Display,
        stop: &impl Fn() -> Option<i32>,
    ) -> (Option<Ended>, Outcome) {
        let mut outcome = Outcome::of(seed);
        let mut train = || -> Result<Ended> {
            let (ended, progress) = match start(seed)? {
                Todo::Finished(progress) => (Ok(Ended::Finished), *progress),
                Todo::Train(both) => {
                    let (mut trainer, mut run) = *both;
                    let mut display = show(&trainer);
                    let ended = trainer.run(Some(&mut run), &mut display, stop);
                    display.close();
                    (ended, trainer.progress)
                }
            };
            let Progress { solved, sequences, seconds, restarts, .. } = progress;
            outcome = Outcome { solved, sequences, seconds, restarts, ..Outcome::of(seed) };
            let results = Run::last_evaluation(&self.run_directory(seed));
            let ended = ended?; // what ended the training before its time is said before what is wrong with its log
            outcome.results = results?;
            Ok(ended)
        };
        match device::isolated(&mut train) {
            Ok(ended) => (Some(ended), outcome),
            Err(error) => (None, Outcome { error: Some(format!("{error:#}")), ..outcome }),
        }
    }

    /// Writes `summary.json`.
    pub fn summarise(&self, mut outcomes: Vec<Outcome>) -> Result<Summary> {
        outcomes.sort_by_key(|outcome| outcome.seed);
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
