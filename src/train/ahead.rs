//! Starts ahead of their turn: while one is trained, those that would follow it, each in a thread of its own. A start
//! is a function of the seed and its number alone, so the run is the one that has them one after the other, only
//! sooner.

use super::{Clock, StepOutcome, Trainer, host};
use crate::checkpoint::Checkpoint;
use crate::config::Recipe;
use crate::device::isolated;
use crate::engine::Engine;
use crate::progress::Progress;
use crate::tasks::Source;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use tch::Device;

/// Makes what a start is trained with, in the thread that trains it.
pub type Parts = dyn Fn(&Recipe) -> Result<(Source, Box<dyn Engine>)> + Send + Sync;

/// Numbers of a start, 16 MB of them, that are kept for pictures of what it was at its evaluations; later ones have
/// none.
const PICTURED: usize = 1 << 22;
/// How many numbers all starts of a run together keep for pictures, while they wait for their turn.
const ALL_PICTURED: usize = 1 << 26;

/// A start as far as it has come before its turn.
pub(super) struct Start {
    pub happened: Vec<Moment>,
    /// Where it stands.
    pub now: Checkpoint,
    /// Where it was best, if it has been evaluated.
    pub best: Option<Checkpoint>,
}

impl Start {
    /// Whether it ends the run.
    fn ends(&self, recipe: &Recipe) -> bool {
        self.now.progress.finished(recipe) && self.happened.last().is_none_or(|last| last.happened.given_up.is_none())
    }
}

/// What has happened after an update of a start, and where that was.
pub(super) struct Moment {
    pub happened: StepOutcome,
    pub progress: Progress,
    /// The machine that was evaluated and the last gradient, for pictures of it.
    pub evaluated: Option<(Vec<f32>, Vec<f32>)>,
}

/// How much is trained at a time, shared by all that may be: runs side by side, and the starts of each.
#[derive(Clone)]
pub struct Jobs {
    pub count: usize,
    free: Arc<AtomicUsize>,
}

impl Jobs {
    pub fn of(count: usize) -> Jobs {
        Jobs { count, free: Arc::new(AtomicUsize::new(count)) }
    }

    /// Whether one was free, which is then taken.
    pub fn take(&self) -> bool {
        self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1)).is_ok()
    }

    pub fn give_back(&self) {
        self.free.fetch_add(1, Ordering::Relaxed);
    }
}

/// How often a run without a job for its next start asks for one.
const ASKS: Duration = Duration::from_secs(1);

/// The starts ahead of a run.
pub struct Ahead {
    shared: Arc<Shared>,
    /// None once it has been waited for.
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    jobs: Jobs,
    recipe: Recipe,
    parts: Box<Parts>,
    /// Numbers that each start may keep for pictures.
    pictured: usize,
}

struct State {
    /// The next start to be trained here.
    next: u32,
    /// The last one that there may be.
    last: u32,
    /// How many may be trained or wait for their turn.
    most: usize,
    /// The start that the run has come to.
    turn: u32,
    /// Those that are no longer trained here, or could not be.
    ready: BTreeMap<u32, Option<Start>>,
    ended: bool,
}

impl Ahead {
    /// Trains the starts after number `start`, each while it has a job that nobody else needs. The run itself has one
    /// of `jobs`.
    pub fn of(recipe: &Recipe, start: u32, jobs: &Jobs, parts: Box<Parts>) -> Result<Ahead> {
        let last = recipe.training.restart.times();
        let count = (jobs.count - 1).min(last.saturating_sub(start) as usize);
        let state = State { next: start + 1, last, most: 2 * count, turn: start, ready: BTreeMap::new(), ended: false };
        let (recipe, jobs, changed) = (recipe.clone(), jobs.clone(), Condvar::new());
        let pictured = PICTURED.min(ALL_PICTURED / state.most.max(1));
        let shared = Arc::new(Shared { state: Mutex::new(state), changed, jobs, recipe, parts, pictured });
        let own = Arc::clone(&shared);
        let thread = Builder::new().spawn(move || own.train_all()).context("cannot start threads")?;
        Ok(Ahead { shared, thread: Some(thread) })
    }

    /// The start whose turn it is, as far as it has come; none if it has not begun, or cannot be trained here.
    pub(super) fn take(&self, start: u32) -> Option<Start> {
        let mut state = self.shared.state();
        state.turn = start;
        let begun = start < state.next;
        state.next = state.next.max(start + 1);
        self.shared.changed.notify_all();
        while begun && !state.ready.contains_key(&start) {
            state = self.shared.changed.wait(state).expect(POISONED);
        }
        state.ready.remove(&start).flatten()
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // Err if it panicked: what it had is not needed any more
        }
    }
}

const POISONED: &str = "no thread panics while it holds the lock";

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(POISONED)
    }

    /// Trains starts until the run has ended, each in a thread of its own from when there is a job for it.
    fn train_all(&self) {
        std::thread::scope(|scope| {
            while let Some(start) = self.next() {
                let trained = Builder::new().spawn_scoped(scope, move || self.train_one(start));
                if trained.is_err() {
                    self.hand_over(start, None); // the run trains it, then
                }
            }
        });
    }

    fn train_one(&self, start: u32) {
        // what fails here fails again in the run, which tells it
        self.hand_over(start, isolated(|| self.train(start)).ok());
    }

    /// Has a start ready for its turn, and gives back its job.
    fn hand_over(&self, start: u32, trained: Option<Start>) {
        self.jobs.give_back();
        let mut state = self.state();
        if trained.as_ref().is_some_and(|trained| trained.ends(&self.recipe)) {
            state.last = state.last.min(start); // no other will be needed
        }
        state.ready.insert(start, trained);
        drop(state);
        self.changed.notify_all();
    }

    /// The number of the next start, when there is room and a job for it; none if nothing is left to do.
    fn next(&self) -> Option<u32> {
        let mut state = self.state();
        loop {
            if state.ended || state.next > state.last {
                return None;
            }
            if ((state.next - state.turn) as usize) <= state.most && self.jobs.take() {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self.changed.wait_timeout(state, ASKS).expect(POISONED).0;
        }
    }

    /// A start until it has come to its end, or its turn has come. An error where the run itself should find out what
    /// is wrong: among others, a number that is not finite, which may be in its weights by then.
    fn train(&self, start: u32) -> Result<Start> {
        let (source, engine) = (self.parts)(&self.recipe)?;
        let theta = self.recipe.layout().initial_theta_of(self.recipe.training.seed, start);
        let progress = Progress { restarts: start, ..Progress::default() };
        let mut trainer = Trainer::at(self.recipe.clone(), progress, &theta, source, engine, Device::Cpu);
        let called = || {
            let state = self.state();
            (state.ended || state.turn >= start).then_some(0)
        };
        let mut clock = Clock::new(&trainer.progress);
        let (mut kept, mut best, mut room) = (vec![], None, self.pictured);
        let mut over = false;
        while !over && !trainer.finished() {
            let happened = trainer.step(&mut clock, &called)?;
            over = happened.given_up.is_some() || happened.stopped.is_some();
            if happened.best {
                best = Some(trainer.checkpoint());
            }
            if happened.scores.is_some() || happened.report.is_some() {
                let pictured = happened.scores.is_some() && room >= 2 * theta.len();
                let evaluated = pictured.then(|| (host(trainer.evaluated_weights()), host(&trainer.gradient)));
                room -= if pictured { 2 * theta.len() } else { 0 };
                kept.push(Moment { happened, progress: trainer.progress.clone(), evaluated });
            }
        }
        Ok(Start { happened: kept, now: trainer.checkpoint(), best })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::display::Display;
    use crate::train::Ended;
    use crate::train::testing::{parts, trainer};

    /// No start is ever within the bound.
    const RECIPE: &str = r#"{"task": {"width": 3, "max_length": 4}, "evaluation": {"lengths": [4], "sequences": 2},
        "model": {"memory": {"rows": 5, "width": 4}, "controller": {"hidden": 6}},
        "training": {"sequences": 300, "average": 0.9, "restart": {"kind": "unless", "times": 3}},
        "solved": {"metric": "loss_bits", "at_most": 0}}"#;

    fn ahead(trainer: &Trainer, jobs: &Jobs, parts: Box<Parts>) -> Ahead {
        Ahead::of(&trainer.recipe, 0, jobs, parts).unwrap()
    }

    /// So many, of which the run has one.
    fn jobs(count: usize) -> Jobs {
        let jobs = Jobs::of(count);
        assert!(jobs.take());
        jobs
    }

    fn fused() -> Box<Parts> {
        Box::new(|recipe| {
            let (source, engine) = parts(recipe);
            Ok((source, engine as Box<dyn Engine>))
        })
    }

    #[test]
    fn a_start_is_handed_over_where_it_stands_and_goes_on_bit_for_bit() {
        let mut alone = trainer(&RECIPE.replace("300", "1000000000"));
        alone.restart(None, &mut Display::Silent, "so that it does").unwrap();
        let ahead = ahead(&alone, &jobs(2), fused());
        while ahead.shared.state().next < 2 {
            std::thread::yield_now(); // until it has begun
        }
        let start = ahead.take(1).expect("it had begun");
        let seen = start.now.progress.step;
        assert!(
            start.happened.iter().all(|kept| kept.happened.given_up.is_none()),
            "it was called while it was trained"
        );
        while alone.progress.step_of_start() < seen {
            alone.update().unwrap();
        }
        let now = alone.checkpoint();
        assert_eq!((now.theta, now.optimizer), (start.now.theta, start.now.optimizer));
    }

    #[test]
    fn a_run_without_a_free_job_or_whose_threads_fail_trains_its_starts_itself() {
        let ended = |trained: usize, ahead: &dyn Fn(&Trainer) -> Option<Ahead>| {
            let trainer = trainer(RECIPE);
            let ahead = ahead(&trainer);
            let ready = |ahead: &Ahead| ahead.shared.state().ready.values().flatten().count();
            while ahead.as_ref().map_or(0, ready) < trained {
                std::thread::sleep(Duration::from_millis(1));
            }
            let mut trainer = trainer.with_ahead(ahead);
            assert_eq!(trainer.run(None, &mut Display::Silent, || None).unwrap(), Ended::Finished);
            let Checkpoint { theta, optimizer, progress, .. } = trainer.checkpoint();
            (theta, optimizer, Progress { seconds: 0.0, ..progress })
        };
        let taken = Jobs::of(3);
        (0..3).for_each(|_| assert!(taken.take()));
        assert!(!taken.take());
        let alone = ended(0, &|_| None);
        assert_eq!((alone.2.restarts, alone.2.step), (3, 1200));
        assert_eq!(ended(0, &|trainer| Some(ahead(trainer, &taken, fused()))), alone);
        assert_eq!(ended(0, &|trainer| Some(ahead(trainer, &jobs(3), Box::new(|_| anyhow::bail!("no parts"))))), alone);
        assert_eq!(ended(3, &|trainer| Some(ahead(trainer, &jobs(3), fused()))), alone);
        taken.give_back();
        assert!(taken.take());
    }

    #[test]
    fn starts_ahead_wait_when_there_are_twice_as_many_as_are_trained_at_a_time() {
        let ahead = ahead(&trainer(&RECIPE.replace("\"times\": 3", "\"times\": 9")), &jobs(2), fused());
        let begun = || ahead.shared.state().next - 1;
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while ahead.shared.state().ready.len() < 2 {
            assert!(std::time::Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(2 * ASKS);
        assert_eq!(begun(), 2);
        assert!(ahead.take(1).is_some());
        while begun() < 3 {
            assert!(std::time::Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
