//! The engine proves itself: before blocks run in a way in which they have not run on this card, by kernels that a
//! compiler has made for it there, they must give what the engine on the CPU gives.

use super::{CudaFused, Shape, shape};
use crate::engine::Engine;
use crate::fused::Fused;
use crate::optim::{Clip, Config, Optimizer};
use crate::random::{Purpose, stream};
use crate::simd::Level;
use crate::tasks::{Batch, Loss};
use anyhow::{Result, bail};
use rand::Rng;
use tch::{Device, Kind, Tensor};

/// The most steps of a sequence that it compares by.
const STEPS: usize = 8;
/// How far a value may be from the CPU's, as a part of the largest of its tensor. Rounding makes up to 3e-5 of it, also
/// in machines of some thousand units and rows.
const TOLERANCE: f32 = 1e-3;
/// Tensors with gradients below this part of the largest of all are compared by that: they are rounding.
const SMALL: f32 = 0.01;

impl CudaFused {
    /// Proves the way in which blocks run a batch of so many sequences, where that has not been done.
    pub fn prove(&mut self, sequences: usize) -> Result<()> {
        let shape = shape(&self.plan, &*self.launcher, sequences, self.options.0)?;
        self.prove_shape(&shape, sequences)
    }

    /// As `prove`, for a batch of this shape: compares logits, gradient and update by a small batch with those of the
    /// CPU. An error names the first tensor that differs.
    pub(super) fn prove_shape(&mut self, shape: &Shape, sequences: usize) -> Result<()> {
        if self.proving || self.launcher.is_proven(&shape.sizes) {
            return Ok(());
        }
        self.proving = true;
        let compared = self.compare(sequences);
        self.proving = false;
        compared.inspect(|()| self.launcher.set_proven(&shape.sizes))
    }

    fn compare(&mut self, sequences: usize) -> Result<()> {
        let mut reference = Fused::<f32>::of(self.plan.clone(), Level::best(), 1)?;
        let mut random = stream(1, Purpose::EvaluationSequence, 0);
        let mut batch = Batch::zeros((0..sequences).map(|b| STEPS - b % STEPS).collect(), self.plan.x, self.plan.y);
        batch.inputs.iter_mut().for_each(|input| *input = random.random_range(-1.0..1.0));
        batch.targets.iter_mut().for_each(|target| *target = random.random_range(0..2) as f32);
        batch.mask.iter_mut().enumerate().for_each(|(row, mask)| {
            *mask = (row / sequences < batch.lengths[row % sequences]) as u8 as f32;
        });
        batch.blur = if self.plan.n > 0 { 0.1 } else { 0.0 };
        let mut theta = self.plan.layout.initial_theta(1);
        let noise = 2.0 / (self.plan.h.max(100) as f32).sqrt(); // or much has no gradient to compare
        theta.iter_mut().for_each(|weight| *weight += random.random_range(-noise..noise));

        let there = Tensor::from_slice(&theta).f_to_device(self.options.1)?.f_to_kind(self.options.0)?;
        let (mut gradient, mut expected_gradient) = (there.f_zeros_like()?, vec![0.0; theta.len()]);
        // both losses; memories that are computed again, and such as are kept
        for (loss, snapshot_bytes) in [(Loss::Squared, 0), (Loss::CrossEntropy, self.snapshot_bytes)] {
            batch.loss = loss;
            let expected = reference.logits_and_gradient(&theta, &batch, &mut expected_gradient);
            let before = std::mem::replace(&mut self.snapshot_bytes, snapshot_bytes);
            let logits = self.logits_and_gradient(&there, &batch, &mut gradient);
            self.snapshot_bytes = before;
            agree("logits", &host(&logits?)?, expected, 0.0)?;
            agree("logits alone", &host(&self.logits(&there, &batch)?)?, expected, 0.0)?;
            let (gradient, least) = (host(&gradient)?, SMALL * largest(&expected_gradient));
            for parameter in &self.plan.layout.parameters {
                let what = format!("gradient of `{}`", parameter.name);
                agree(&what, &gradient[parameter.range()], &expected_gradient[parameter.range()], least)?;
            }
        }
        self.compare_updates(&Tensor::from_slice(&expected_gradient))
    }

    /// Compares clip and optimizer: what they make of zeros by a gradient.
    fn compare_updates(&self, gradient: &Tensor) -> Result<()> {
        let there = gradient.f_to_device(self.options.1)?.f_to_kind(self.options.0)?;
        let clip = Clip::Norm { at: gradient.norm().double_value(&[]) / 2.0 };
        for config in Config::kinds() {
            let (mut expected, mut found) = (gradient.zeros_like(), there.f_zeros_like()?);
            let norm = Optimizer::new(&config, &clip, gradient).update(1.0, &mut expected, gradient, 1) as f32;
            let mut optimizer = Optimizer::new(&config, &clip, &there).with_kernels(self.update_kernels(&there));
            let told = optimizer.update_later(1.0, &mut found, &there, &there, 1)?;
            agree("the gradient's norm", &host(&told)?, &[norm], 0.0)?;
            agree("the weights after an update", &host(&found)?, &host(&expected)?, 0.0)?;
        }
        Ok(())
    }
}

fn host(values: &Tensor) -> Result<Vec<f32>> {
    Ok(Vec::try_from(values.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_reshape([-1])?)?)
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, value| most.max(value.abs()))
}

/// Refuses values that are too far from those expected, by the largest of these or `least`.
fn agree(what: &str, found: &[f32], expected: &[f32], least: f32) -> Result<()> {
    let allowed = TOLERANCE * largest(expected).max(least);
    let wrong = |(found, expected): (&f32, &f32)| {
        let apart = (found - expected).abs();
        apart.is_nan() || apart > allowed
    };
    match found.iter().zip(expected).position(wrong) {
        None => Ok(()),
        Some(at) => bail!(
            "its kernels are wrong here: {what}, element {at} is {}, on the CPU {}\n\
             hint: `--device cpu`; please report this with the card, its driver and the recipe",
            found[at],
            expected[at]
        ),
    }
}
