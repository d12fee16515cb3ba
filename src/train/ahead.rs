//! Starts ahead of their turn: while one is trained, those that would follow it, each on threads of its own. A start is a
//! function of the seed and its number alone, so the run is the one that has them one after the other, only sooner.

use super::{Clock, Happened, NotFinite, Trainer, host};
use crate::checkpoint::{Checkpoint, Progress};
use crate::config::Recipe;
use crate::device::caught;
use crate::engine::Engine;
use crate::tasks::Source;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;
use tch::Device;

/// Makes what another start is trained with, in the thread that trains it.
pub type Parts = dyn Fn(&Recipe) -> Result<(Source, Box<dyn Engine>)> + Send + Sync;

/// A start as far as it has come before its turn.
pub(super) struct Start {
    pub happened: Vec<Kept>,
    /// Where it stands.
    pub now: Checkpoint,
    /// Where it was best, if it has been evaluated.
    pub best: Option<Checkpoint>,
}

/// What has happened after an update of a start, and where that was.
pub(super) struct Kept {
    pub happened: Happened,
    pub progress: Progress,
    /// The machine that was evaluated and the last gradient, if it was.
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

/// How often a thread without a job asks for one.
const ASKS: Duration = Duration::from_millis(250);

/// The starts ahead of a run.
pub struct Ahead {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    jobs: Jobs,
    recipe: Recipe,
    parts: Box<Parts>,
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
    /// Trains the starts after number `start`, each while it has a job that nobody else needs.
    pub fn of(recipe: &Recipe, start: u32, jobs: &Jobs, parts: Box<Parts>) -> Result<Ahead> {
        let count = jobs.count - 1; // the run itself has one
        let state = State {
            next: start + 1,
            last: recipe.training.restart.times(),
            most: 2 * count,
            turn: start,
            ready: BTreeMap::new(),
            ended: false,
        };
        let (recipe, jobs, changed) = (recipe.clone(), jobs.clone(), Condvar::new());
        let shared = Arc::new(Shared { state: Mutex::new(state), changed, jobs, recipe, parts });
        let begin = |_| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().spawn(move || shared.work()).context("cannot start threads")
        };
        Ok(Ahead { threads: (0..count).map(begin).collect::<Result<_>>()?, shared })
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
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // it has panicked; what it had is not needed any more
        }
    }
}

const POISONED: &str = "no thread panics while it holds the lock";

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(POISONED)
    }

    /// Trains one start after another until the run has ended.
    fn work(&self) {
        while let Some(start) = self.next() {
            // what fails here fails again in the run, which tells it
            let trained = catch_unwind(AssertUnwindSafe(|| caught(|| self.train(start))));
            let trained = trained.ok().and_then(Result::ok).flatten();
            self.jobs.give_back();
            self.state().ready.insert(start, trained);
            self.changed.notify_all();
        }
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

    /// A start until it has come to its end, or its turn has come. None if it failed where the run itself should find out why.
    fn train(&self, start: u32) -> Result<Option<Start>> {
        let (source, engine) = (self.parts)(&self.recipe)?;
        let theta = self.recipe.layout().start_after(self.recipe.training.seed, start);
        let progress = Progress { restarts: start, ..Progress::default() };
        let mut trainer = Trainer::at(self.recipe.clone(), progress, &theta, source, engine, Device::Cpu);
        let called = || {
            let state = self.state();
            (state.ended || state.turn >= start).then_some(0)
        };
        let mut clock = Clock::new(&trainer.progress);
        let (mut kept, mut best) = (vec![], None);
        while !trainer.finished() {
            let before = trainer.progress.step;
            let happened = match trainer.once(&mut clock, &called) {
                Err(error) if error.is::<NotFinite>() && trainer.progress.step == before => break, // the run will meet it, too
                once => once?,
            };
            let (given_up, stopped) = (happened.given_up.is_some(), happened.stopped.is_some());
            if happened.best {
                best = Some(trainer.checkpoint());
            }
            if happened.scores.is_some() || happened.report.is_some() {
                let evaluated = happened.scores.as_ref().map(|_| (host(trainer.machine()), host(&trainer.gradient)));
                kept.push(Kept { happened, progress: trainer.progress.clone(), evaluated });
            }
            if given_up || stopped {
                break;
            }
        }
        Ok(Some(Start { happened: kept, now: trainer.checkpoint(), best }))
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

    fn fused() -> Box<Parts> {
        Box::new(|recipe| {
            let (source, engine) = parts(recipe);
            Ok((source, engine as Box<dyn Engine>))
        })
    }

    #[test]
    fn a_start_is_handed_over_where_it_stands_and_goes_on_bit_for_bit() {
        let mut alone = trainer(RECIPE);
        alone.restart(None, &mut Display::Silent, "so that it does").unwrap();
        let ahead = ahead(&alone, &Jobs::of(2), fused());
        while ahead.shared.state().next < 2 {
            std::thread::yield_now(); // until it has begun
        }
        let start = ahead.take(1).expect("it had begun");
        let seen = start.now.progress.step;
        assert!(seen < 300, "it was called while it was trained");
        while alone.progress.of_start() < seen {
            alone.update().unwrap();
        }
        let now = alone.checkpoint();
        assert_eq!((now.theta, now.optimizer), (start.now.theta, start.now.optimizer));
    }

    #[test]
    fn a_run_without_a_free_job_or_whose_threads_fail_trains_its_starts_itself() {
        let ended = |ahead: &dyn Fn(&Trainer) -> Option<Ahead>| {
            let trainer = trainer(RECIPE);
            let ahead = ahead(&trainer);
            let mut trainer = trainer.with_ahead(ahead);
            assert_eq!(trainer.run(None, &mut Display::Silent, || None).unwrap(), Ended::Finished);
            let Checkpoint { theta, optimizer, progress, .. } = trainer.checkpoint();
            (theta, optimizer, Progress { seconds: 0.0, ..progress })
        };
        let taken = Jobs::of(3);
        (0..3).for_each(|_| assert!(taken.take()));
        assert!(!taken.take());
        let alone = ended(&|_| None);
        assert_eq!((alone.2.restarts, alone.2.step), (3, 1200));
        assert_eq!(ended(&|trainer| Some(ahead(trainer, &taken, fused()))), alone);
        assert_eq!(
            ended(&|trainer| Some(ahead(trainer, &Jobs::of(3), Box::new(|_| anyhow::bail!("no parts"))))),
            alone
        );
        assert_eq!(ended(&|trainer| Some(ahead(trainer, &Jobs::of(3), fused()))), alone);
        taken.give_back();
        assert!(taken.take());
    }

    #[test]
    fn starts_ahead_wait_when_there_are_twice_as_many_as_are_trained_at_a_time() {
        let ahead = ahead(&trainer(&RECIPE.replace("\"times\": 3", "\"times\": 9")), &Jobs::of(2), fused());
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
