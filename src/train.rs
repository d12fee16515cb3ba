//! The training loop: updates, reports, evaluations and checkpoints in their turn. Knows no flags.

mod ahead;
mod average;
mod evaluation;
mod log;
mod nonfinite;
mod restart;
mod update;

use crate::checkpoint::Checkpoint;
use crate::config::{ITERATE, Recipe};
use crate::device::DeviceKind;
use crate::display::Display;
use crate::distributed::Group;
use crate::engine::Engine;
use crate::metrics::{Report, Score, Totals};
use crate::model::Layout;
use crate::optim::Optimizer;
use crate::progress::{Progress, TrainedBy, Window};
use crate::run::Run;
use crate::tasks::{Curriculum, Source};
pub use ahead::{Ahead, Jobs};
use anyhow::Result;
pub use evaluation::{Protocol, evaluate};
pub use nonfinite::NotFinite;
use std::time::Instant;
use tch::{Device, Kind, Tensor};
use update::Waiting;

/// How a call of `Trainer::run` ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ended {
    /// All sequences of the recipe have been seen, or it is solved and asks to stop there.
    Finished,
    /// The signal of this number asked to stop; the run is saved.
    Stopped(i32),
}

pub struct Trainer {
    pub recipe: Recipe,
    pub progress: Progress,
    source: Source,
    engine: Box<dyn Engine>,
    layout: Layout,
    theta: Tensor,
    /// The moving average of theta, where the recipe asks for one: the machine that is evaluated and saved.
    average: Option<Tensor>,
    gradient: Tensor,
    optimizer: Optimizer,
    /// Updates whose logits and norm nobody has read yet. Empty where the engine gives them at once.
    waiting: Vec<Waiting>,
    /// The ranks that train together, each its slice of every batch.
    group: Group,
    /// What this rank has of updates that have not been summed over the ranks yet, and their norms. Empty in a process
    /// alone.
    unreduced: Vec<(Totals, f64)>,
    /// The starts that may come after this one, where they are trained already.
    ahead: Option<Ahead>,
}

/// What has happened after an update.
#[derive(Default)]
struct StepOutcome {
    scores: Option<Vec<Score>>,
    /// Whether these are the best so far.
    best: bool,
    report: Option<Report>,
    /// Why the start is given up.
    given_up: Option<String>,
    /// Whether a rollback may go back to here.
    regular: bool,
    /// The signal that asked to stop.
    stopped: Option<i32>,
    /// Whether it is of an update of an earlier session, whose gradient is gone.
    closed: bool,
}

impl StepOutcome {
    /// Whether the run is to be saved.
    fn saves(&self) -> bool {
        self.regular || self.stopped.is_some()
    }
}

/// The time that a run takes.
struct Clock {
    session: Instant,
    seconds_before: f64,
    /// Since the last report.
    began: Instant,
    sequences_before: u64,
}

impl Clock {
    fn new(progress: &Progress) -> Clock {
        let now = Instant::now();
        Clock { session: now, seconds_before: progress.seconds, began: now, sequences_before: progress.sequences }
    }

    /// Seconds of training in all sessions.
    fn seconds(&self) -> f64 {
        self.seconds_before + self.session.elapsed().as_secs_f64()
    }

    /// Does what is no training, whose time is left out of the rate.
    fn aside<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.began += start.elapsed();
        done
    }

    /// Sequences a second since it was last asked for.
    fn rate(&mut self, sequences: u64) -> f64 {
        let rate = (sequences - self.sequences_before) as f64 / self.began.elapsed().as_secs_f64();
        (self.began, self.sequences_before) = (Instant::now(), sequences);
        rate
    }
}

impl Trainer {
    /// A trainer at step 0, its weights drawn from the recipe's seed.
    pub fn new(recipe: Recipe, source: Source, engine: Box<dyn Engine>, device: Device) -> Trainer {
        let theta = recipe.layout().initial_theta(recipe.training.seed);
        Trainer::at(recipe, Progress::default(), &theta, source, engine, device)
    }

    /// A trainer where a checkpoint left off.
    pub fn restore(checkpoint: &Checkpoint, source: Source, engine: Box<dyn Engine>, device: Device) -> Trainer {
        let Checkpoint { recipe, progress, theta, optimizer } = checkpoint;
        let mut trainer = Trainer::at(recipe.clone(), progress.clone(), theta, source, engine, device);
        trainer.load_weights(theta, optimizer);
        trainer
    }

    /// Takes these weights to begin with, instead of those that were drawn.
    pub fn begin_with(&mut self, theta: &[f32]) {
        self.load_weights(theta, &[]);
    }

    /// This trainer as one rank of a group. All must have the same recipe and stand at the same step; they end at the
    /// same one.
    pub fn in_group(self, group: Group) -> Trainer {
        Trainer { group, ..self }
    }

    /// This trainer with starts that are trained ahead of their turn: the run is the same, and sooner at its end. Not
    /// for a group.
    pub fn with_ahead(self, ahead: Option<Ahead>) -> Trainer {
        Trainer { ahead, ..self }
    }

    /// Takes weights and the vectors beside them from a checkpoint; without these, weights to begin with.
    fn load_weights(&mut self, theta: &[f32], optimizer: &[(String, Vec<f32>)]) {
        self.waiting.clear();
        self.unreduced.clear();
        self.optimizer.recover();
        let iterate = optimizer.iter().find(|(name, _)| name == ITERATE).map_or(theta, |(_, values)| values);
        self.theta.copy_(&Tensor::from_slice(iterate));
        if let Some(average) = &mut self.average {
            average.copy_(&Tensor::from_slice(theta));
        }
        for (name, state) in &mut self.optimizer.state {
            if let Some((_, saved)) = optimizer.iter().find(|(of, _)| of == name) {
                state.copy_(&Tensor::from_slice(saved));
            }
        }
    }

    fn at(
        recipe: Recipe,
        progress: Progress,
        theta: &[f32],
        source: Source,
        engine: Box<dyn Engine>,
        device: Device,
    ) -> Trainer {
        let theta = Tensor::from_slice(theta).to_device(device);
        Trainer {
            layout: recipe.layout(),
            average: recipe.training.average_decay(1).map(|_| theta.copy()),
            gradient: theta.zeros_like(),
            optimizer: Optimizer::new(&recipe.training.optimizer, &recipe.training.clip, &theta)
                .with_kernels(engine.update_kernels(&theta)),
            recipe,
            progress,
            source,
            engine,
            theta,
            waiting: vec![],
            group: Group::alone(),
            unreduced: vec![],
            ahead: None,
        }
    }

    pub fn checkpoint(&self) -> Checkpoint {
        let trained_by = TrainedBy { engine: self.engine.kind(), device: DeviceKind::of(self.theta.device()) };
        let state = |(name, vector): &(&str, Tensor)| (name.to_string(), host(vector));
        let iterate = self.average.as_ref().map(|_| (ITERATE.to_string(), host(&self.theta)));
        Checkpoint {
            recipe: self.recipe.clone(),
            progress: Progress { trained_by, ..self.progress.clone() },
            theta: host(self.evaluated_weights()),
            optimizer: self.optimizer.state.iter().map(state).chain(iterate).collect(),
        }
    }

    pub fn finished(&self) -> bool {
        self.progress.finished(&self.recipe)
    }

    /// Updates until the recipe's sequences are seen or `stop` gives the number of a signal. `run`: where it is logged
    /// and saved, by the rank that leads.
    pub fn run(
        &mut self,
        mut run: Option<&mut Run>,
        display: &mut Display,
        stop: impl Fn() -> Option<i32>,
    ) -> Result<Ended> {
        self.group.wait_for_leader(self.prepare(run.as_deref()))?;
        loop {
            match self.advance(run.as_deref_mut(), display, &stop) {
                Err(error) if error.is::<NotFinite>() && self.progress.rollbacks < self.most_rollbacks() => {
                    self.go_back(run.as_deref_mut(), display, &error)?;
                }
                Err(error) if error.is::<NotFinite>() && self.may_restart() => {
                    self.restart(run.as_deref_mut(), display, &error.to_string())?;
                    self.group.wait_for_leader(run.as_deref().map_or(Ok(()), |run| self.save(run, true)))?;
                }
                ended => return ended,
            }
        }
    }

    /// Trains as `run` does, up to the first number that is not finite.
    fn advance(
        &mut self,
        mut run: Option<&mut Run>,
        display: &mut Display,
        stop: &impl Fn() -> Option<i32>,
    ) -> Result<Ended> {
        let mut clock = Clock::new(&self.progress);
        while !self.finished() || self.progress.closing.is_some() {
            let closing = self.progress.closing.is_some();
            if !closing && !self.may_be_given_up() {
                self.ahead = None;
            }
            let happened = if closing { self.after_update(&mut clock, None)? } else { self.step(&mut clock, stop)? };
            display.tick(self.progress.sequences);
            if self.finished() {
                display.expect(self.progress.sequences); // where it ends solved
            }
            if happened.scores.is_some() || happened.report.is_some() {
                let log = || run.as_deref_mut().map_or(Ok(()), |run| self.log(run, display, &happened));
                let logged = clock.aside(log);
                self.group.wait_for_leader(logged)?;
            }
            if let Some(why) = &happened.given_up {
                self.restart(run.as_deref_mut(), display, why)?;
                clock.rate(self.progress.sequences); // what has been trained ahead is none of it
            }
            if happened.saves() || self.finished() {
                let saved = clock.aside(|| run.as_deref().map_or(Ok(()), |run| self.save(run, happened.regular)));
                self.group.wait_for_leader(saved)?;
            }
            if let Some(signal) = happened.stopped.filter(|_| !self.finished()) {
                return Ok(Ended::Stopped(signal));
            }
        }
        self.group.wait_for_leader(run.map_or(Ok(()), Run::log_end))?;
        Ok(Ended::Finished)
    }

    /// One update, and what is due after it.
    fn step(&mut self, clock: &mut Clock, stop: &impl Fn() -> Option<i32>) -> Result<StepOutcome> {
        let all = self.update_with(stop())?;
        // the ranks of a group stop after the same step: the first whose all-reduce says so
        let stopped = all.map_or_else(stop, |all| all.stopped);
        self.after_update(clock, stopped)
    }

    /// What is due after an update; where the run is closing, what was not due when that update was made.
    fn after_update(&mut self, clock: &mut Clock, stopped: Option<i32>) -> Result<StepOutcome> {
        let closing = self.progress.closing.is_some();
        self.progress.seconds = clock.seconds();
        let training = &self.recipe.training;
        let (step, last) = (self.progress.step_of_start(), self.finished());
        let due = |every: u64| every > 0 && step.is_multiple_of(every);
        let logged = closing && due(training.eval_every);
        let wanted = self.threshold_due(); // or else it begins anew
        let evaluated = !logged && (training.eval_every > 0 && last || due(training.eval_every));
        let measured = wanted.is_some() || evaluated;
        let reported = wanted.is_some() || last || due(training.report_every);
        let saved = due(training.checkpoint_every);
        let mut happened = StepOutcome { stopped, regular: saved, ..StepOutcome::default() };
        if measured || reported || saved || stopped.is_some() {
            self.settle()?;
            self.progress.seconds = clock.seconds(); // with the wait for the device
        }
        if measured {
            let (scores, best) = clock.aside(|| self.evaluate())?; // which may solve it
            happened.given_up = self.why_given_up(wanted.as_ref(), &scores);
            (happened.scores, happened.best) = (Some(scores).filter(|_| !logged), best);
        }
        if (reported || self.finished()) && self.progress.window.updates > 0 {
            happened.report = Some(self.report(clock.rate(self.progress.sequences)));
        }
        happened.regular |= happened.given_up.is_some();
        happened.closed = self.progress.closing.take().is_some();
        Ok(happened)
    }

    /// What must be there before the first update: something to go back to if the recipe asks for it, and a checkpoint,
    /// so that a run can be resumed from its first moment on.
    fn prepare(&self, run: Option<&Run>) -> Result<()> {
        let Some(run) = run else { return Ok(()) };
        self.prepare_rollback(run)?;
        if self.progress.step == 0 { self.checkpoint().save(&run.latest()) } else { Ok(()) }
    }

    /// Saves the run, and what a rollback goes back to if this is where it may.
    fn save(&self, run: &Run, regular: bool) -> Result<()> {
        let checkpoint = self.checkpoint();
        if self.most_rollbacks() > 0 && regular {
            checkpoint.save(&run.rollback())?; // first: it may be ahead of `latest`, and must not be behind
        }
        run.save(&checkpoint)
    }

    /// The means since the last report.
    fn report(&mut self, sequences_per_second: f64) -> Report {
        let Window { totals, updates, grad_norms, clipped_norms } = std::mem::take(&mut self.progress.window);
        let last = self.progress.step_of_start().saturating_sub(1);
        Report {
            step: self.progress.step,
            sequences: self.progress.sequences,
            seconds: self.progress.seconds,
            figures: totals.figures(self.recipe.task.scoring()).of_training(),
            grad_norm: grad_norms / updates as f64,
            clipped_norm: self.recipe.training.clip.clipped(0.0).map(|_| clipped_norms / updates as f64),
            learning_rate: self.progress.learning_rate(&self.recipe, self.progress.step_of_start()),
            sequences_per_second,
            reach: (self.recipe.training.curriculum != Curriculum::None).then(|| self.reach(last)),
            restarts: self.progress.restarts,
        }
    }
}

/// A vector's values on the host.
fn host(vector: &Tensor) -> Vec<f32> {
    Vec::try_from(vector.to_device(Device::Cpu).to_kind(Kind::Float)).expect("theta is a vector")
}

#[cfg(test)]
mod testing {
    use super::*;
    use crate::fused::Fused;

    /// What a trainer of a recipe needs beside it: its source, and the fused engine on the CPU.
    pub fn parts(recipe: &Recipe) -> (Source, Box<Fused>) {
        (Source::open(&recipe.task).unwrap(), Box::new(Fused::new(recipe.network(), 1).unwrap()))
    }

    /// A trainer of a recipe's text.
    pub fn trainer(recipe: &str) -> Trainer {
        let recipe = Recipe::parse(recipe, &[]).unwrap();
        let (source, engine) = parts(&recipe);
        Trainer::new(recipe, source, engine, Device::Cpu)
    }
}
