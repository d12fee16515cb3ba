//! Starts that have not got far enough, and new ones.

use super::Trainer;
use crate::checkpoint::Progress;
use crate::config::Threshold;
use crate::display::Display;
use tch::Tensor;

impl Trainer {
    /// What must have been reached by this update, or else the run begins anew. A start that has been solved has no need to.
    pub(super) fn wanted(&self) -> Option<Threshold> {
        let (step, solved) = (self.progress.of_start(), &self.recipe.solved.threshold);
        let wanted = self.recipe.training.restart.asks(step, self.recipe.updates(), solved)?;
        (self.may_restart() && self.progress.solved.is_none()).then(|| wanted.clone())
    }

    pub(super) fn may_restart(&self) -> bool {
        self.progress.restarts < self.recipe.training.restart.times()
    }

    /// Begins anew from other weights, to be saved by the caller. Updates and sequences are counted on, so the data are new, too;
    /// `best` is still the machine in its file.
    pub(super) fn restart(&mut self, display: &mut Display, why: &str) {
        let restarts = self.progress.restarts + 1;
        let theta = self.layout.restart(self.recipe.training.seed, restarts);
        let _guard = tch::no_grad_guard();
        self.waiting.clear();
        self.apart.clear();
        self.optimizer.reset();
        self.theta.copy_(&Tensor::from_slice(&theta));
        let Progress { step, sequences, seconds, best, engine, .. } = std::mem::take(&mut self.progress);
        self.progress =
            Progress { step, sequences, seconds, best, engine, restarts, given_up: step, ..Progress::default() };
        let times = self.recipe.training.restart.times();
        display.line(&format!("  {why}: beginning anew, restart {restarts} of at most {times}"));
        display.expect(sequences + self.recipe.updates() * self.recipe.training.batch_size as u64);
    }
}
