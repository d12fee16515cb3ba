//! The recipe: one experiment, task + model + training. Defaults < recipe file < flags.

mod blur;
mod load;
mod nonfinite;
mod overlay;
mod restart;
mod settings;
mod solved;
mod suggest;
mod words;

pub use blur::Blur;
pub use load::BUILT_IN;
pub use nonfinite::{MOST_ROLLBACKS, OnNonfinite};
pub use restart::{MOST_RESTARTS, Restart};
pub use solved::{Metric, Solved, Threshold};
#[cfg(test)]
pub use words::words_of;

use crate::limits::in_range;
use crate::{model, optim, tasks};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// A resolved recipe: every field has a value. The same version of the program rebuilds a run from it, bit for bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    pub about: String,
    pub task: tasks::Task,
    pub model: model::Config,
    pub training: Training,
    pub evaluation: Evaluation,
    pub solved: Solved,
}

/// How a model is trained. The `_every` fields count updates; of `eval_every` and `checkpoint_every` 0 means never.
/// `sequences` are those of one start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    pub batch_size: usize,
    pub sequences: u64,
    pub seed: u64,
    /// The checkpoint, or directory of a run, whose weights the first start begins with; if empty they are drawn.
    pub from: String,
    /// The checksum of those weights, or empty: not looked at yet. Only the same weights rebuild a run.
    pub from_content: String,
    pub clip: optim::Clip,
    pub report_every: u64,
    pub eval_every: u64,
    pub checkpoint_every: u64,
    pub optimizer: optim::Config,
    pub schedule: optim::Schedule,
    /// Decay of the moving average of the weights that is evaluated and saved (Polyak and Juditsky 1992); 0: none, the
    /// weights themselves. See `average_decay`.
    pub average: f64,
    pub curriculum: tasks::Curriculum,
    pub blur: Blur,
    pub on_nonfinite: OnNonfinite,
    pub restart: Restart,
}

/// What a checkpoint calls the weights that are trained, where `model.*` are their average.
pub const ITERATE: &str = "iterate";

impl Training {
    /// What the average keeps of itself at an update of a start, which counts from 1: at first less than `average`, or
    /// it would long remember the weights of the start. None where there is no average.
    pub fn average_decay(&self, step: u64) -> Option<f64> {
        let step = step as f64;
        (self.average > 0.0).then(|| self.average.min((1.0 + step) / (10.0 + step)))
    }

    /// The vectors of theta's length that a checkpoint has beside the weights.
    pub fn vectors(&self) -> impl Iterator<Item = &'static str> {
        let iterate = (self.average > 0.0).then_some(ITERATE);
        optim::Optimizer::state_names(&self.optimizer).iter().copied().chain(iterate)
    }
}

/// What is evaluated during training. `progress::Best` says how the checkpoint `best` is chosen by it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Values for each axis of the task.
    #[serde(flatten)]
    pub grid: tasks::Grid,
    /// At each point. For own data no more than the file holds, and 0 means all of it.
    pub sequences: usize,
}

impl Evaluation {
    /// Where a task is evaluated unless its recipe says more.
    pub fn of(task: &tasks::Task) -> Evaluation {
        let grid: tasks::Grid = task.axes().into_iter().map(|axis| (axis.axis, axis.evaluation)).collect();
        let sequences = if grid.is_empty() { 0 } else { 20 };
        Evaluation { grid, sequences }
    }
}

/// The first of the kinds that a section can have.
fn usual<T>(kinds: Vec<T>) -> T {
    kinds.into_iter().next().expect("every section has a kind")
}

impl Default for Recipe {
    fn default() -> Self {
        let task = usual(tasks::Task::kinds());
        Recipe {
            about: String::new(),
            evaluation: Evaluation::of(&task),
            solved: Solved::of(&task),
            task,
            model: usual(model::Config::kinds()),
            training: Training {
                batch_size: 1,
                sequences: 20_000,
                seed: 1,
                from: String::new(),
                from_content: String::new(),
                clip: usual(optim::Clip::kinds()),
                report_every: 100,
                eval_every: 1000,
                checkpoint_every: 1000,
                optimizer: usual(optim::Config::kinds()),
                schedule: usual(optim::Schedule::kinds()),
                average: 0.0,
                curriculum: usual(tasks::Curriculum::kinds()),
                blur: usual(Blur::kinds()),
                on_nonfinite: OnNonfinite::default(),
                restart: usual(Restart::kinds()),
            },
        }
    }
}

impl Recipe {
    /// This recipe's network.
    pub fn network(&self) -> model::Spec<'_> {
        let (input_width, output_width) = self.task.widths();
        model::Spec { config: &self.model, input_width, output_width }
    }

    /// The parameters of this recipe's network.
    pub fn layout(&self) -> model::Layout {
        model::Layout::new(self.network())
    }

    /// The number of updates that see `training.sequences` sequences, all those of a start.
    pub fn updates(&self) -> u64 {
        self.updates_of(self.training.sequences)
    }

    /// The number of updates that see so many.
    pub fn updates_of(&self, sequences: u64) -> u64 {
        sequences.div_ceil(self.training.batch_size as u64)
    }

    /// What the best evaluation is chosen by: wrong bits, where bits can be right. The loss of what few sequences
    /// show depends on luck once nearly none is wrong. Of the user's own sequences what says that they are solved.
    pub fn judged_by(&self) -> Metric {
        match (&self.task, Metric::of_task(&self.task)[0]) {
            (tasks::Task::Sequences(_), _) => self.solved.threshold.metric,
            (_, Metric::ExcessBits) => Metric::LossBits,
            (_, first) => first,
        }
    }

    /// Checks every field; the error names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        self.task.validate()?;
        self.model.validate()?;
        let training = &self.training;
        in_range("training.batch_size", training.batch_size, 1, 1 << 20)?;
        in_range("training.sequences", training.sequences, 1, 1 << 50)?;
        in_range("training.report_every", training.report_every, 1, 1 << 50)?;
        training.clip.validate()?;
        training.optimizer.validate()?;
        training.schedule.validate()?;
        in_range("training.average", training.average, 0.0, 0.99999)?;
        training.curriculum.validate()?;
        if training.curriculum != (tasks::Curriculum::None) && self.task.axes().is_empty() {
            bail!(
                "`training.curriculum` grows the sizes of drawn sequences, {} come from files\nhint: leave its kind at none",
                self.task.name()
            );
        }
        training.blur.validate(&self.model)?;
        training.on_nonfinite.validate()?;
        training.restart.validate(&self.task)?;
        self.solved.threshold.validate("solved", &self.task)?;
        in_range("solved.confirm", self.solved.confirm, 0, 1 << 20)?;
        if self.solved.confirm > 0 && self.task.axes().is_empty() {
            bail!(
                "`solved.confirm` draws more sequences, {} has those of its file\nhint: leave it at 0",
                self.task.name()
            );
        }
        if self.solved.stop && training.eval_every == 0 && training.restart.times() == 0 {
            bail!("`solved.stop` is true, but `training.eval_every` is 0, so nothing is ever found solved");
        }
        let axes = self.task.axes();
        in_range("evaluation.sequences", self.evaluation.sequences, !axes.is_empty() as usize, 1 << 20)?;
        for axis in axes {
            let field = format!("evaluation.{}", axis.axis.plural());
            let values = self.evaluation.grid.get(&axis.axis).map_or(&[][..], Vec::as_slice);
            for &value in values {
                in_range(&field, value, axis.least, tasks::MOST)?;
            }
            if values.is_empty() && training.eval_every > 0 {
                bail!(
                    "`{field}` is empty, but `training.eval_every` is {}\nhint: name a value, or set `training.eval_every` to 0",
                    training.eval_every
                );
            }
            if values.is_empty() && training.restart.times() > 0 {
                bail!(
                    "`{field}` is empty, but `training.restart` looks at an evaluation\nhint: name a value, or set its kind to never"
                );
            }
        }
        Ok(())
    }
}
