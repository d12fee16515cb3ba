//! Clip and optimizer by the kernels of `kernels/update.cu`: two launches where tensor operations are some thirty.

use super::kernels::{Grid, Kernel, Launcher, NORM_BLOCKS, Update};
use crate::optim::{Clip, DeviceUpdate, Rule};
use anyhow::{Context, Result};
use std::rc::Rc;
use tch::Tensor;

/// Of a block: the fewest that `Blocks::on_card` gives (see `Launcher::launch_update`).
const THREADS: usize = 256;

pub struct UpdateKernels {
    launcher: Rc<dyn Launcher>,
    partial: Tensor,
    /// Whether something was not finite, as `Update` has it, and which of the two is the last one.
    broken: Tensor,
    turn: bool,
}

impl UpdateKernels {
    /// For vectors like theta, which lie where the launcher's kernels run.
    pub fn new(launcher: Rc<dyn Launcher>, theta: &Tensor) -> UpdateKernels {
        let options = (theta.kind(), theta.device());
        let partial = Tensor::zeros([2 * NORM_BLOCKS as i64], options);
        UpdateKernels { launcher, partial, broken: Tensor::zeros([2], options), turn: false }
    }
}

impl DeviceUpdate for UpdateKernels {
    fn update(
        &mut self,
        clip: &Clip,
        rule: &Rule,
        vectors: &[&Tensor],
        gradient: &Tensor,
        logits: &Tensor,
    ) -> Result<Tensor> {
        let (theta, state) = vectors.split_first().context("there is theta")?;
        let told = Tensor::f_empty([0; 0], (theta.kind(), theta.device()))?;
        let logits = logits.f_to_kind(theta.kind())?;
        let at = |tensor: &Tensor| tensor.data_ptr() as u64;
        let mut states = [0; 3];
        states.iter_mut().zip(state).for_each(|(place, vector)| *place = at(vector));
        let (clip, limit) = match clip {
            Clip::None => (0, 0.0),
            Clip::Norm { at } => (1, *at),
            Clip::Value { at } => (2, *at),
        };
        let update = Update {
            theta: at(theta),
            states,
            gradient: at(gradient),
            logits: at(&logits),
            partial: at(&self.partial),
            broken: at(&self.broken),
            told: at(&told),
            size: theta.numel() as i32,
            logit_count: logits.numel() as i64,
            turn: self.turn as i32,
            clip,
            at: limit as f32,
            ..numbers(rule)
        };
        self.turn = !self.turn;
        let shared = 2 * THREADS * theta.kind().elt_size_in_bytes(); // enough where a warp is one thread
        let grid = |blocks| Grid { blocks, threads: THREADS, shared };
        // SAFETY: theta, gradient and states are as long as theta, as `new` and `Optimizer` have made them; the rest is
        // ours.
        unsafe {
            self.launcher.launch_update(Kernel::Norm, grid(NORM_BLOCKS), &update)?;
            self.launcher.launch_update(Kernel::Update, grid(theta.numel().div_ceil(THREADS)), &update)?;
        }
        Ok(told)
    }

    fn recover(&mut self) {
        let _ = self.broken.zero_();
    }
}

/// A rule's numbers.
fn numbers(rule: &Rule) -> Update {
    let averages = |mean: f64, square: f64| Update {
        keep_mean: mean as f32,
        new_mean: (1.0 - mean) as f32,
        keep_square: square as f32,
        new_square: (1.0 - square) as f32,
        ..Update::default()
    };
    match *rule {
        Rule::Rmsprop { learning_rate, momentum, decay, epsilon } => Update {
            rate: learning_rate as f32,
            momentum: momentum as f32,
            epsilon: epsilon as f32,
            ..averages(decay, decay)
        },
        Rule::Adam { rate, beta1, beta2, epsilon, unbias_square } => Update {
            adam: 1,
            rate: rate as f32,
            epsilon: epsilon as f32,
            unbias_square: unbias_square as f32,
            ..averages(beta1, beta2)
        },
    }
}
