//! What a run logs of an update: scores, reports, pictures, and the checkpoint of the best evaluation.

use super::evaluation::EVALUATION_SEED;
use super::{StepOutcome, Trainer, host};
use crate::display::Display;
use crate::metrics::Score;
use crate::replay::{Memory, MemoryShape};
use crate::run::Run;
use crate::tensorboard::Look;
use anyhow::Result;
use tch::Tensor;

/// The most steps of a sequence that is looked at, and the most weights of all its weightings.
const LOOK_STEPS: usize = 640;
const LOOK_WEIGHTS: usize = 1 << 24;

impl Trainer {
    /// Logs what has happened after an update; keeps the machine if it is the best.
    pub(super) fn log(&mut self, run: &mut Run, display: &Display, happened: &StepOutcome) -> Result<()> {
        if happened.best {
            self.checkpoint().save(&run.best())?;
        }
        let pictured = happened.scores.is_some() && !happened.closed;
        let evaluated = pictured.then(|| (host(self.evaluated_weights()), host(&self.gradient)));
        self.log_of(run, display, happened, evaluated.as_ref())
    }

    /// Logs what happened at an earlier moment, whose weights and last gradient are given if there is to be a picture;
    /// keeps no machine.
    pub(super) fn log_of(
        &mut self,
        run: &mut Run,
        display: &Display,
        happened: &StepOutcome,
        evaluated: Option<&(Vec<f32>, Vec<f32>)>,
    ) -> Result<()> {
        let step = self.progress.step;
        if let Some(scores) = &happened.scores {
            run.log_evaluation(step, self.progress.sequences, scores)?;
            let solved = self.recipe.solved.threshold.by(scores); // after a rollback perhaps no longer at the step where it was
            display.evaluation(scores, self.progress.solved.as_ref().filter(|at| at.step == step && solved));
            if let Some((theta, gradient)) = evaluated {
                self.look(run, scores, theta, gradient)?;
            }
        }
        if let Some(report) = &happened.report {
            run.log_report(report)?;
            display.report(report);
        }
        Ok(())
    }

    /// Logs what a machine does with the first sequence of the first point where that is not too long to look at, its
    /// weights and the last gradient.
    fn look(&mut self, run: &mut Run, scores: &[Score], theta: &[f32], gradient: &[f32]) -> Result<()> {
        let shape = MemoryShape::of(&self.recipe.model);
        let weights = shape.map_or(0, |shape| shape.rows * shape.heads());
        let most = LOOK_STEPS.min(LOOK_WEIGHTS / weights.max(1));
        let mut batch = None;
        for score in scores {
            let first = self.source.evaluation_batch(EVALUATION_SEED, &score.point, 0, 1)?;
            if first.steps <= most {
                batch = Some(first);
                break;
            }
        }
        let Some(batch) = batch else { return Ok(()) };
        let weights = Tensor::from_slice(theta).to_device(self.theta.device());
        let logits = self.engine.forward(&weights, &batch)?.to_vec();
        let trace = self.engine.trace(&weights, &batch)?;
        let memory = shape.map(|shape| (shape, Memory::start(shape, &self.layout, theta)));
        let look = Look { batch: &batch, logits: &logits, trace: &trace, memory };
        run.log_machine(self.progress.step, &self.layout, theta, gradient, &look)
    }
}
