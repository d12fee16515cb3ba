//! One update, and what it has come to: at once on the host, later on a device.

use super::{NotFinite, Trainer, host};
use crate::distributed::Step;
use crate::engine::Logits;
use crate::metrics::Totals;
use crate::tasks::Batch;
use anyhow::Result;
use tch::Tensor;

/// Logits that may wait on a device to be read, 128 MB of them.
const WAITING: usize = 1 << 25;

/// The result of an update on a device, once it is there.
pub(super) struct Waiting {
    batch: Batch,
    logits: Tensor,
    norm: Tensor,
}

impl Trainer {
    /// One update: draw the batch of this step, gradient, clip, optimizer. Its result is in the progress when
    /// `settle` has returned. An error of either names what is not finite.
    pub fn update(&mut self) -> Result<()> {
        self.update_with(None).map(drop)
    }

    /// An update where a signal has perhaps asked this rank to stop. Returns the result of the step on all ranks; none
    /// in a process alone.
    pub(super) fn update_with(&mut self, asked: Option<i32>) -> Result<Option<Step>> {
        let step = self.progress.step_of_start();
        if self.recipe.training.curriculum.asks(step) {
            self.settle()?;
            self.recipe.training.curriculum.judge(&mut self.progress.lesson);
        }
        let training = &self.recipe.training;
        let reach = self.reach(step);
        let (size, slice) = (training.batch_size, self.group.slice(training.batch_size));
        let mut batch = self.source.training_slice(training.seed, self.progress.batch(), size, reach, slice)?;
        batch.blur = training.blur.at(step + 1, self.progress.updates(&self.recipe));
        self.update_by(batch, asked)
    }

    /// How far the curriculum reaches in an update of this start, which counts from 0.
    pub(super) fn reach(&self, step: u64) -> f64 {
        let (training, updates) = (&self.recipe.training, self.progress.updates(&self.recipe));
        training.curriculum.reach(step, updates, &self.progress.lesson, &self.recipe.task.axes())
    }

    /// One update by a batch, or by this rank's slice of one.
    pub(super) fn update_by(&mut self, batch: Batch, asked: Option<i32>) -> Result<Option<Step>> {
        self.check_inputs(&batch)?;
        let step = self.progress.step_of_start() + 1;
        let factor = self.progress.rate_factor(&self.recipe, step);
        let all = match self.engine.gradient(&self.theta, &batch, &mut self.gradient)? {
            Logits::Host(logits) => {
                let mut totals = Totals::default();
                totals.add(self.recipe.task.scoring(), logits, &batch);
                let all = self.reduce(&batch, asked, || Tensor::from(totals.loss))?;
                if !all.map_or(totals.loss.is_finite(), |all| all.finite) {
                    return Err(self.not_finite(&batch, false));
                }
                let norm = self.optimizer.update(factor, &mut self.theta, &self.gradient, step);
                if !norm.is_finite() {
                    return Err(self.not_finite(&batch, true));
                }
                self.count(totals, norm);
                self.update_average(step, None);
                all
            }
            Logits::Device(logits) => {
                let all = self.reduce(&batch, asked, || logits.sum(logits.kind()) * 0.0)?;
                let told = all.map(|all| Tensor::from(if all.finite { 0.0 } else { f64::NAN }));
                let told = told.map(|told| told.to_kind(logits.kind()).to_device(logits.device()));
                let sound = told.as_ref().unwrap_or(&logits);
                let (optimizer, theta) = (&mut self.optimizer, &mut self.theta);
                let norm = optimizer.update_later(factor, theta, &self.gradient, sound, step)?;
                self.update_average(step, Some(&norm));
                self.waiting.push(Waiting { batch, logits, norm });
                all
            }
        };
        self.progress.step += 1;
        self.progress.sequences += self.recipe.training.batch_size as u64;
        // by a bound that is the same on all ranks: what is not finite must end the same update on each
        let most = self.recipe.training.batch_size * self.recipe.task.max_steps() * self.recipe.task.output_width();
        if self.waiting.len() * most > WAITING {
            self.read_waiting()?;
        }
        Ok(all)
    }

    /// The all-reduce of a step: makes the gradient of a slice that of the batch. In a process alone it does nothing,
    /// and gives none.
    fn reduce(&mut self, slice: &Batch, asked: Option<i32>, loss: impl FnOnce() -> Tensor) -> Result<Option<Step>> {
        if self.group.is_alone() {
            return Ok(None);
        }
        let part = slice.size() as f64 / self.recipe.training.batch_size as f64;
        self.group.step(&mut self.gradient, part, &loss(), asked).map(Some)
    }

    /// Adds an update to the window of the next report, or to what is to be summed over the ranks first.
    fn count(&mut self, totals: Totals, norm: f64) {
        if self.group.is_alone() {
            self.progress.count(&totals, norm, &self.recipe.training.clip);
        } else {
            self.unreduced.push((totals, norm));
        }
    }

    /// Waits for the updates on a device and for the other ranks, and counts their results. An error if the
    /// loss or the gradient of one was not finite: the weights, and the progress, are then those before it.
    pub fn settle(&mut self) -> Result<()> {
        self.read_waiting()?;
        let mut rows: Vec<Vec<f64>> = self.unreduced.iter().map(|(totals, _)| totals.to_row()).collect();
        self.group.sum(&mut rows)?;
        for ((_, norm), row) in std::mem::take(&mut self.unreduced).into_iter().zip(&rows) {
            self.progress.count(&Totals::from_row(row), norm, &self.recipe.training.clip);
        }
        Ok(())
    }

    fn read_waiting(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut waiting = std::mem::take(&mut self.waiting).into_iter();
        while let Some(Waiting { batch, logits, norm }) = waiting.next() {
            let (mut totals, norm) = (Totals::default(), norm.double_value(&[]));
            totals.add(self.recipe.task.scoring(), &host(&logits.reshape([-1])), &batch);
            if !totals.loss.is_finite() || !norm.is_finite() {
                let lost = 1 + waiting.len() as u64;
                self.progress.step -= lost;
                self.progress.sequences -= lost * self.recipe.training.batch_size as u64;
                self.optimizer.recover();
                self.engine.gradient(&self.theta, &batch, &mut self.gradient)?; // which a later update has overwritten
                return Err(self.not_finite(&batch, totals.loss.is_finite()));
            }
            self.count(totals, norm);
        }
        match self.first_not_finite() {
            Some(what) => {
                Err(NotFinite(format!("{what} is not a finite number at update {}", self.progress.step)).into())
            }
            None => Ok(()), // no file may hold what `load` refuses
        }
    }
}
