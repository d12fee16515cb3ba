//! The fused engine on the CPU. It works through a batch in parts. The threads first take the micro-batches of a part,
//! a few sequences each, forward and backward, and then sum the part's weight gradients.
//! Every sum has one fixed order, so neither the number of threads nor the grouping changes a bit.

mod addressing;
mod backward;
mod controller;
mod crew;
mod forward;
mod memory;
mod parameter_gradients;
mod product;
#[cfg(test)]
mod slopes;
mod tape;
mod trace;
mod trial;
mod vector;
mod weights;

use super::plan::Plan;
use crate::engine::{Engine, EngineKind, Logits, Trace};
use crate::flat;
use crate::model::Spec;
use crate::simd::{self, Arch, Float, Level, Work};
use crate::tasks::Batch;
use anyhow::{Context, Result};
use crew::Crew;
use forward::Slice;
use std::ops::Range;
use std::time::Instant;
use tape::{MICRO_BATCH, Tape};
use tch::Tensor;
use trial::Trial;
use weights::Weights;

/// The bytes of tapes that the caches hold until their rows are summed into the weight gradients.
const CACHED: u128 = 1 << 23;

/// The number of values that the tapes hold in an update of a batch of `batch` sequences of `steps` steps.
pub fn activations(spec: Spec, steps: usize, batch: usize, threads: usize) -> u128 {
    let plan = Plan::new(spec);
    tape::values(&plan, steps as u128) * batch.min(part::<f32>(&plan, steps, batch, threads)) as u128
}

/// The sequences of a micro-batch.
fn micro_batch(batch: usize, threads: usize) -> usize {
    (batch / threads).clamp(1, MICRO_BATCH)
}

/// The sequences of a part: as many micro-batches as the caches hold, but at least one for each thread.
fn part<F: Float>(plan: &Plan, steps: usize, batch: usize, threads: usize) -> usize {
    let size = micro_batch(batch, threads);
    let bytes = tape::values(plan, steps as u128) * (size_of::<F>() * size) as u128;
    (CACHED / bytes).max(1).next_multiple_of(threads as u128) as usize * size
}

/// The engine, in f32 for use and in f64 for the proof of its algebra.
pub struct Fused<F: Float = f32> {
    plan: Plan,
    weights: Weights<F>,
    tapes: Vec<Tape<F>>,
    /// The gradient of every Dense's W (J, K): the controller's layers, heads, output.
    d_w: Vec<Vec<F>>,
    crew: Crew,
    /// Whether the crew shares the work of a single sequence.
    trial: Trial,
    level: Level,
    logits: Vec<f32>,
}

impl<F: Float> Fused<F> {
    /// An engine that uses up to `threads` threads and the widest instructions of this machine.
    pub fn new(spec: Spec, threads: usize) -> Result<Fused<F>> {
        Fused::at_level(Level::best(), spec, threads)
    }

    /// An engine that uses the instructions of a level, one of `Level::available()`.
    pub fn at_level(level: Level, spec: Spec, threads: usize) -> Result<Fused<F>> {
        Fused::of(Plan::new(spec), level, threads)
    }

    /// As `at_level`, by a network's plan.
    pub(in crate::fused) fn of(plan: Plan, level: Level, threads: usize) -> Result<Fused<F>> {
        Ok(Fused {
            plan,
            weights: Weights::default(),
            tapes: vec![],
            d_w: vec![],
            crew: Crew::new(threads)?,
            trial: Trial::default(),
            level,
            logits: vec![],
        })
    }

    /// The logits (T, B, Y) of a batch; padded steps give 0. theta (layout.size())
    pub fn logits(&mut self, theta: &[F], batch: &Batch) -> &[f32] {
        self.begin(theta, batch);
        self.sweep(batch, 0..batch.size(), Pass::Forward);
        &self.logits
    }

    /// As `logits`, and the gradient of the training loss. Goes through the batch in parts whose tapes the caches hold.
    pub fn logits_and_gradient(&mut self, theta: &[F], batch: &Batch, gradient: &mut [F]) -> &[f32] {
        let loss_weights = batch.loss_weights(self.plan.y);
        self.begin(theta, batch);
        let part = part::<F>(&self.plan, batch.steps, batch.size(), self.crew.threads());
        gradient.fill(F::ZERO);
        let start = Instant::now();
        let threads = if batch.size() == 1 && !self.trial.shares() { 1 } else { self.crew.threads() };
        for first in (0..batch.size()).step_by(part) {
            self.sweep(batch, first..batch.size().min(first + part), Pass::Gradient(&loss_weights));
            self.weight_gradients(first > 0, threads);
            self.start_gradients(gradient);
        }
        if batch.size() == 1 && self.crew.threads() > 1 {
            self.trial.took(start.elapsed().as_secs_f64() / batch.steps as f64);
        }
        self.finish_gradients(gradient);
        &self.logits
    }

    /// Checks a batch, packs the weights and makes room for the logits.
    fn begin(&mut self, theta: &[F], batch: &Batch) {
        self.plan.check(theta.len(), batch);
        simd::run(self.level, Pack { plan: &self.plan, theta, weights: &mut self.weights });
        self.logits.clear();
        self.logits.resize(batch.steps * batch.size() * self.plan.y, 0.0);
    }

    /// A pass over a part of a batch, in micro-batches over the threads.
    fn sweep(&mut self, batch: &Batch, sequences: Range<usize>, pass: Pass) {
        let size = micro_batch(batch.size(), self.crew.threads());
        self.tapes.resize_with(sequences.len().div_ceil(size), Tape::default);
        let (plan, weights, level) = (&self.plan, &self.weights, self.level);
        let sweep = |crew: &mut Crew, index, tape: &mut Tape<F>| {
            let first = sequences.start + index * size;
            tape.reset(plan, &batch.lengths[first..sequences.end.min(first + size)], !matches!(pass, Pass::Forward));
            simd::run(level, Sweep { plan, weights, crew, slice: Slice { batch, first }, pass, tape });
        };
        match self.tapes.as_mut_slice() {
            [tape] if batch.size() == 1 && self.trial.shares() => sweep(&mut self.crew, 0, tape),
            [tape] => sweep(&mut Crew::alone(), 0, tape),
            tapes => {
                let threads = tapes.len();
                let tapes = tapes.iter_mut().enumerate();
                self.crew.each(threads, tapes, |(index, tape)| sweep(&mut Crew::alone(), index, tape));
            }
        }

        let y = self.plan.y;
        for (index, tape) in self.tapes.iter().enumerate() {
            let slice = Slice { batch, first: sequences.start + index * size };
            for b in 0..tape.lengths.len() {
                for t in 1..=tape.lengths[b] {
                    let from = &tape.outputs[tape.logit_row(b, t) * y..][..y];
                    self.logits[slice.row(b, t) * y..][..y].copy_from_slice(from);
                }
            }
        }
    }
}

struct Pack<'a, F: Float> {
    plan: &'a Plan,
    theta: &'a [F],
    weights: &'a mut Weights<F>,
}

impl<F: Float> Work for Pack<'_, F> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        self.plan.pack::<F, A>(self.theta, self.weights);
    }
}

/// What is done with the sequences of a batch.
#[derive(Clone, Copy)]
enum Pass<'a> {
    /// Forward alone.
    Forward,
    /// Forward, and the tapes keep every step.
    Trace,
    /// Forward and backward, with the loss weights (T, B).
    Gradient(&'a [f32]),
}

/// A pass over one micro-batch.
struct Sweep<'a, F: Float> {
    plan: &'a Plan,
    weights: &'a Weights<F>,
    crew: &'a mut Crew,
    slice: Slice<'a>,
    pass: Pass<'a>,
    tape: &'a mut Tape<F>,
}

impl<F: Float> Work for Sweep<'_, F> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Sweep { plan, weights, crew, slice, pass, tape } = self;
        forward::forward::<F, A>(plan, weights, crew, slice, tape);
        tape.outputs.clear();
        let logits = &tape.logits;
        tape.outputs
            .extend(logits.data.chunks_exact(logits.stride).flat_map(|row| &row[..plan.y]).map(|logit| logit.to_f32()));
        if let Pass::Gradient(loss_weights) = pass {
            backward::backward::<F, A>(plan, weights, crew, slice, loss_weights, tape);
        }
    }
}

impl Engine for Fused<f32> {
    fn kind(&self) -> EngineKind {
        EngineKind::Fused
    }

    fn forward(&mut self, theta: &Tensor, batch: &Batch) -> Result<&[f32]> {
        Ok(self.logits(flat::values(theta).context(NOT_ON_CPU)?, batch))
    }

    fn trace(&mut self, theta: &Tensor, batch: &Batch) -> Result<Trace> {
        Ok(self.trace(flat::values(theta).context(NOT_ON_CPU)?, batch))
    }

    fn gradient(&mut self, theta: &Tensor, batch: &Batch, gradient: &mut Tensor) -> Result<Logits<'_>> {
        let theta = flat::values(theta).context(NOT_ON_CPU)?;
        Ok(Logits::Host(self.logits_and_gradient(theta, batch, flat::values_mut(gradient).context(NOT_ON_CPU)?)))
    }
}

const NOT_ON_CPU: &str = "the fused CPU engine takes f32 vectors on the CPU";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Recipe;
    use crate::model::Layout;

    /// Any values, none of them alike.
    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 1.7).sin()).collect()
    }

    #[test]
    fn a_sequence_of_which_every_step_is_shared_gives_the_bits_of_one_thread() {
        let steps = 23;
        // Each with how often its work is shared. Forward that is once for each layer of more than `LANES` outputs in
        // each step, backward once for all recurrent layers in each step but the last.
        let machines = [
            (r#"{"controller": {"hidden": 70}, "memory": {"rows": 20, "width": 9}}"#, 2 * steps - 1),
            (r#"{"controller": {"hidden": 40, "layers": 2}, "memory": {"rows": 20, "width": 9}}"#, 3 * steps - 1),
            (r#"{"kind": "lstm", "hidden": 50, "layers": 2}"#, 3 * steps - 1),
            (r#"{"controller": {"hidden": 5}, "memory": {"rows": 7, "width": 3}, "read_heads": 2}"#, 2 * steps - 1),
            (r#"{"controller": {"kind": "feedforward", "hidden": 200}, "memory": {"rows": 7, "width": 3}}"#, steps),
            (r#"{"controller": {"kind": "feedforward", "hidden": 5}, "memory": {"rows": 7, "width": 3}}"#, 0),
        ];
        let batch = Batch {
            steps,
            lengths: vec![steps],
            inputs: values(steps * 5),
            targets: (0..steps * 3).map(|i| (i % 2) as f32).collect(),
            mask: vec![1.0; steps],
            ..Batch::default()
        };
        for (model, shared) in machines {
            let recipe = Recipe::parse(&format!(r#"{{"model": {model}}}"#), &[]).unwrap();
            for level in Level::available() {
                let mut engine = Fused::<f32>::at_level(level, Spec::new(&recipe.model, 5, 3), 2).unwrap();
                let start = Layout::new(Spec::new(&recipe.model, 5, 3)).initial_theta(1);
                let theta: Vec<f32> =
                    start.iter().zip(values(start.len())).map(|(start, value)| start + 0.3 * value).collect();
                let update = |engine: &mut Fused<f32>| {
                    let mut gradient = vec![0.0; theta.len()];
                    let logits = engine.logits_and_gradient(&theta, &batch, &mut gradient).to_vec();
                    [logits, gradient].concat().into_iter().map(f32::to_bits).collect::<Vec<u32>>()
                };
                let alone = update(&mut engine);
                for _ in 0..3 {
                    engine.trial = Trial::sharing();
                    engine.crew.begun = Some(0);
                    assert!(update(&mut engine) == alone, "{model}, {level:?}");
                    assert_eq!(engine.crew.begun, Some(shared), "{model}, {level:?}");
                }
            }
        }
    }
}
