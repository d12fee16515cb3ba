//! Numbers that are not finite: found in the update that makes them, named, and perhaps gone back from.

use super::{Trainer, host};
use crate::checkpoint::Checkpoint;
use crate::display::Display;
use crate::files::remove;
use crate::progress::Progress;
use crate::run::Run;
use crate::tasks::Batch;
use anyhow::{Context, Error, Result};

/// What is not finite, and at which update.
#[derive(Debug)]
pub struct NotFinite(pub String);

impl std::fmt::Display for NotFinite {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotFinite {}

impl Trainer {
    /// Refuses inputs that are not finite. Files and generators give none.
    pub(super) fn check_inputs(&self, batch: &Batch) -> Result<()> {
        let Some(at) = batch.inputs.iter().position(|value| !value.is_finite()) else { return Ok(()) };
        let width = batch.inputs.len() / batch.mask.len();
        let (row, channel) = (at / width, at % width);
        let (step, sequence) = (row / batch.size(), row % batch.size());
        let value = format!("step {step}, channel {channel} of sequence {sequence}");
        Err(NotFinite(format!("the input is {} {} ({value})", batch.inputs[at], self.place(batch))).into())
    }

    /// The error of an update in which a number was not finite, which names the first of them: a weight, the
    /// optimizer's state, a gradient, the loss, or the gradient's norm, whose square a device has in 32 bits.
    pub(super) fn not_finite(&self, batch: &Batch, loss_is_finite: bool) -> Error {
        let sum = if loss_is_finite { "the gradient's norm" } else { "the loss" };
        let what = self.first_not_finite().unwrap_or_else(|| sum.to_string());
        NotFinite(format!("{what} is not a finite number {}", self.place(batch))).into()
    }

    /// The first vector with a value that is not finite: a weight, the optimizer's state or a gradient, in words.
    pub(super) fn first_not_finite(&self) -> Option<String> {
        let states = self.optimizer.state.iter().map(|(name, vector)| (format!("the optimizer's {name} of"), vector));
        let weights = [Some(&self.theta), self.average.as_ref()].into_iter().flatten();
        let vectors = weights.map(|vector| ("weight".to_string(), vector)).chain(states);
        vectors.chain([("the gradient of".to_string(), &self.gradient)]).find_map(|(what, vector)| {
            let index = host(vector).iter().position(|value| !value.is_finite())?;
            Some(format!("{what} `{}`", self.layout.at(index).name))
        })
    }

    fn place(&self, batch: &Batch) -> String {
        format!("at update {} (batch of {}, {} steps)", self.progress.step + 1, batch.size(), batch.steps)
    }

    pub(super) fn most_rollbacks(&self) -> u32 {
        self.recipe.training.on_nonfinite.rollbacks()
    }

    /// Makes sure that there is a checkpoint to go back to if the recipe asks for one, and no old one otherwise.
    pub(super) fn prepare_rollback(&self, run: &Run) -> Result<()> {
        let path = run.rollback();
        if self.most_rollbacks() == 0 {
            return remove(&path);
        }
        match Checkpoint::load(&path) {
            Ok(Checkpoint { progress: good, .. })
                if self.progress.step > 0
                    && good.step <= self.progress.step
                    && good.restarts == self.progress.restarts =>
            {
                Ok(())
            }
            _ => self.checkpoint().save(&path),
        }
    }

    /// Goes back to the last checkpoint of `checkpoint_every`, to go on from there with half the learning rate. Not to
    /// `latest`, which a stop may have saved anywhere: so an interrupted run goes back to where an uninterrupted one
    /// does. What was measured stays: `best` is still the machine in its file.
    pub(super) fn go_back(&mut self, run: Option<&mut Run>, display: &Display, error: &Error) -> Result<()> {
        let read = || {
            let run = run.as_deref().context("the rank that leads has a run")?;
            Checkpoint::read(&run.rollback())
        };
        let good = Checkpoint::parse(&self.group.share(read)?).context("in the checkpoint to go back to")?;
        self.load_weights(&good.theta, &good.optimizer);
        let Progress { best, solved, seconds, rollbacks, .. } = std::mem::take(&mut self.progress);
        let rollbacks = rollbacks + 1;
        self.progress = Progress { best, solved, seconds, rollbacks, ..good.progress };
        let written = run.map_or(Ok(()), |run| {
            self.checkpoint().save(&run.latest())?; // first: a run that goes on from it drops what was logged after it
            run.go_back(self.progress.step)
        });
        self.group.wait_for_leader(written)?;
        let (step, most) = (self.progress.step, self.most_rollbacks());
        display.line(&error.to_string());
        display.line(&format!("back to update {step} with half the learning rate, rollback {rollbacks} of {most}"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::composed::Composed;
    use crate::config::Recipe;
    use crate::engine::{Engine, EngineKind, Logits, Trace};
    use crate::fused::Fused;
    use crate::tasks::Source;
    use tch::{Device, Tensor};

    const BAD: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

    fn recipe() -> Recipe {
        let text = r#"{"task": {"width": 3, "max_length": 4}, "training": {"batch_size": 2},
            "model": {"memory": {"rows": 5, "width": 4}, "controller": {"hidden": 6}, "init": {"memory": "learned"}}}"#;
        Recipe::parse(text, &[]).unwrap()
    }

    fn engines() -> [Box<dyn Engine>; 2] {
        let recipe = recipe();
        [Box::new(Fused::<f32>::new(recipe.network(), 1).unwrap()), Box::new(Composed::new(recipe.network()))]
    }

    fn trainer(engine: Box<dyn Engine>) -> Trainer {
        let recipe = recipe();
        Trainer::new(recipe.clone(), Source::open(&recipe.task).unwrap(), engine, Device::Cpu)
    }

    /// The message of the next update, which must be an error that counts no update.
    fn refused(trainer: &mut Trainer) -> String {
        let before = trainer.progress.clone();
        let error = trainer.update().expect_err("a number is not finite");
        assert!(error.is::<NotFinite>(), "{error}");
        assert_eq!(trainer.progress, before);
        error.to_string()
    }

    #[test]
    fn a_weight_that_is_not_finite_stops_the_next_update_and_is_named_whichever_it_is() {
        for engine in engines() {
            let (name, mut trainer) = (engine.kind(), trainer(engine));
            trainer.update().unwrap();
            let good = trainer.checkpoint();
            for parameter in trainer.layout.parameters.clone() {
                for (bad, index) in BAD.into_iter().zip([parameter.offset, parameter.range().end - 1, parameter.offset])
                {
                    let mut theta = good.theta.clone();
                    theta[index] = bad;
                    trainer.load_weights(&theta, &good.optimizer);
                    let expected = format!("weight `{}` is not a finite number at update 2 ", parameter.name);
                    let message = refused(&mut trainer);
                    assert!(message.starts_with(&expected), "{name}, {bad} in {}: {message}", parameter.name);
                }
            }
            trainer.load_weights(&good.theta, &good.optimizer);
            trainer.update().unwrap();
        }
    }

    /// An engine with a gradient that is wrong in one place. `late`: its logits stay on the device.
    struct Broken {
        engine: Box<dyn Engine>,
        index: usize,
        value: f32,
        late: bool,
    }

    impl Engine for Broken {
        fn kind(&self) -> EngineKind {
            self.engine.kind()
        }

        fn forward(&mut self, theta: &Tensor, batch: &Batch) -> Result<&[f32]> {
            self.engine.forward(theta, batch)
        }

        fn trace(&mut self, theta: &Tensor, batch: &Batch) -> Result<Trace> {
            self.engine.trace(theta, batch)
        }

        fn gradient(&mut self, theta: &Tensor, batch: &Batch, gradient: &mut Tensor) -> Result<Logits<'_>> {
            let logits = self.engine.gradient(theta, batch, gradient)?;
            crate::flat::values_mut(gradient).unwrap()[self.index] = self.value;
            match logits {
                Logits::Host(logits) if self.late => Ok(Logits::Device(Tensor::from_slice(logits))),
                logits => Ok(logits),
            }
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_is_named_and_changes_no_weight() {
        for parameter in &recipe().layout().parameters {
            for value in BAD {
                let [engine, _] = engines();
                let mut trainer = trainer(Box::new(Broken { engine, index: parameter.offset, value, late: false }));
                let theta = host(&trainer.theta);
                let expected = format!("the gradient of `{}` is not a finite number at update 1 ", parameter.name);
                let message = refused(&mut trainer);
                assert!(message.starts_with(&expected), "{message}");
                assert_eq!(host(&trainer.theta), theta);
            }
        }
    }

    #[test]
    fn a_norm_that_overflows_on_a_device_is_named_although_every_gradient_is_finite() {
        let [engine, _] = engines();
        let mut trainer = trainer(Box::new(Broken { engine, index: 7, value: 1e30, late: true }));
        trainer.update().unwrap();
        let message = trainer.settle().unwrap_err().to_string();
        assert!(message.starts_with("the gradient's norm is not a finite number at update 1 "), "{message}");
    }

    #[test]
    fn squares_that_overflow_are_named_before_a_checkpoint_can_hold_them() {
        for optimizer in ["rmsprop", "adam"] {
            let settings = [format!("training.optimizer.kind={optimizer}"), "training.clip.kind=none".to_string()];
            let recipe = Recipe::parse(&serde_json::to_string(&recipe()).unwrap(), &settings).unwrap();
            let [engine, _] = engines();
            let engine = Box::new(Broken { engine, index: 7, value: 1e21, late: false }); // its square is not finite in 32 bits
            let source = Source::open(&recipe.task).unwrap();
            let mut trainer = Trainer::new(recipe, source, engine, Device::Cpu);
            let message = refused(&mut trainer);
            let expected = "the optimizer's mean_square of `controller.weight_ih_l0` is not a finite number";
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn an_input_that_is_not_finite_is_refused_with_its_place() {
        for (engine, bad) in engines().into_iter().zip(BAD) {
            let mut trainer = trainer(engine);
            let mut batch = trainer.source.training_batch(1, 0, 2, 1.0).unwrap();
            batch.inputs[4 + 2] = bad; // (T, B, X) with B 2 and X 4: step 0 of sequence 1, channel 2
            let expected = format!("the input is {bad} at update 1 (batch of 2, {} steps)", batch.steps);
            let message = trainer.update_by(batch, None).unwrap_err().to_string();
            assert_eq!(message, expected + " (step 0, channel 2 of sequence 1)");
        }
    }
}
