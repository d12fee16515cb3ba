//! The moving average of the weights. A machine whose weights move on while its loss stays is right now and wrong then;
//! their average is right more often (Polyak and Juditsky 1992, SIAM J. Control Optim. 30).

use super::Trainer;
use tch::Tensor;

impl Trainer {
    /// The weights that are evaluated and saved: those that are trained, or their average.
    pub(super) fn evaluated_weights(&self) -> &Tensor {
        self.average.as_ref().unwrap_or(&self.theta)
    }

    /// Takes the weights after an update of this start, which counts from 1, into their average, if there is one.
    /// `norm`: that of the gradient where a device has yet to compute it; if it will not be finite, the average stays
    /// as it is.
    pub(super) fn update_average(&mut self, step: u64, norm: Option<&Tensor>) {
        let (Some(average), Some(decay)) = (&mut self.average, self.recipe.training.average_decay(step)) else {
            return;
        };
        let _ = match norm {
            Some(norm) => average.lerp_tensor_(&self.theta, &(norm.isfinite().to_kind(average.kind()) * (1.0 - decay))),
            None => average.lerp_(&self.theta, 1.0 - decay),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::config::{Blur, ITERATE};
    use crate::display::Display;
    use crate::train::testing::{self, parts};
    use tch::Device;

    const RECIPE: &str = r#"{"task": {"width": 3, "max_length": 4},
        "model": {"memory": {"rows": 5, "width": 4}, "controller": {"hidden": 6}}, "evaluation": {"lengths": [4], "sequences": 2},
        "training": {"sequences": 100, "average": 0.8, "blur": {"kind": "ramp", "at": 0.3}, "restart": {"kind": "unless"}}}"#;

    fn trainer() -> Trainer {
        testing::trainer(RECIPE)
    }

    fn iterate(checkpoint: &Checkpoint) -> &[f32] {
        let (name, values) = checkpoint.optimizer.last().unwrap();
        assert_eq!(name, ITERATE);
        values
    }

    #[test]
    fn a_checkpoint_has_the_average_of_the_weights_and_the_weights() {
        let mut trainer = trainer();
        let mut average: Vec<f64> = trainer.checkpoint().theta.iter().map(|&value| value as f64).collect();
        for step in 1..=60 {
            trainer.update().unwrap();
            let decay = f64::min(0.8, (1.0 + step as f64) / (10.0 + step as f64));
            let saved = trainer.checkpoint();
            average.iter_mut().zip(iterate(&saved)).for_each(|(a, &w)| *a = *a * decay + w as f64 * (1.0 - decay));
            let off = saved.theta.iter().zip(&average).map(|(&a, b)| (a as f64 - b).abs()).fold(0.0, f64::max);
            assert!(off < 1e-6, "step {step}: {off}");
        }
        assert_ne!(trainer.checkpoint().theta, iterate(&trainer.checkpoint()));
    }

    #[test]
    fn evaluation_sees_the_average() {
        let mut trainer = trainer();
        for _ in 0..40 {
            trainer.update().unwrap();
        }
        let seen = trainer.evaluate().unwrap().0;
        trainer.theta.copy_(trainer.average.as_ref().unwrap());
        trainer.average = None;
        assert_eq!(trainer.evaluate().unwrap().0, seen);
    }

    #[test]
    fn a_restored_trainer_goes_on_bit_for_bit() {
        let mut uninterrupted = trainer();
        let mut saved = None;
        for step in 0..40 {
            if step == 17 {
                saved = Some(uninterrupted.checkpoint());
            }
            uninterrupted.update().unwrap();
        }
        let saved = saved.unwrap();
        let (source, engine) = parts(&saved.recipe);
        let mut restored = Trainer::restore(&saved, source, engine, Device::Cpu);
        while restored.progress.step < 40 {
            restored.update().unwrap();
        }
        let [a, b] = [restored, uninterrupted].map(|trainer| trainer.checkpoint());
        assert_eq!((a.theta, a.optimizer), (b.theta, b.optimizer));
    }

    #[test]
    fn a_new_start_has_nothing_of_the_one_before() {
        let mut trainer = trainer();
        for _ in 0..10 {
            trainer.update().unwrap();
        }
        trainer.restart(None, &mut Display::Silent, "so that it does").unwrap();
        let start = trainer.checkpoint();
        assert_eq!(start.theta, iterate(&start));
        assert_eq!(start.theta, trainer.layout.initial_theta_of(trainer.recipe.training.seed, 1));
    }

    #[test]
    fn blur_is_part_of_training_alone() {
        let mut blurred = trainer();
        let mut plain = trainer();
        plain.recipe.training.blur = Blur::None;
        let evaluated = [&mut blurred, &mut plain].map(|trainer| {
            trainer.progress.step = 50; // where the ramp is at its height
            trainer.evaluate().unwrap().0
        });
        assert_eq!(evaluated[0], evaluated[1]);
        let updated = [&mut blurred, &mut plain].map(|trainer| {
            trainer.update().unwrap();
            trainer.checkpoint().theta
        });
        assert_ne!(updated[0], updated[1]);
    }
}
