//! What the forward pass leaves for the backward pass, and the buffers of both. One tape serves a micro-batch, a few
//! consecutive sequences of a batch. Buffers grow once and are reused.
//!
//! Row `row(b, t)` of a field belongs to sequence b after step t; t = 0 is the state before the first step.
//! A row holds O(N + M + H) values; of whole memories there is a snapshot every `segment` steps only.
//!
//! N' is N padded to whole vectors, the plan's `n_stride`; other strides are padded, too, and named by what they hold.

use super::addressing::HeadTape;
use crate::fused::plan::{Dense, Plan};
use crate::simd::Float;

/// The most sequences of a micro-batch. They step together and share each load of the weights.
pub const MICRO_BATCH: usize = 4;

/// The sequences of a micro-batch that have a step t, and the rows of their values. Past the end of the longest there
/// are none.
#[derive(Clone, Copy)]
pub struct Step {
    pub t: usize,
    size: usize,
    sequences: [usize; MICRO_BATCH],
    rows: [usize; MICRO_BATCH],
    logit_rows: [usize; MICRO_BATCH],
}

impl Step {
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// The b of each sequence.
    #[inline(always)]
    pub fn sequences(&self) -> &[usize] {
        &self.sequences[..self.size]
    }

    /// `Tape::row(b, t)` of each.
    #[inline(always)]
    pub fn rows(&self) -> &[usize] {
        &self.rows[..self.size]
    }

    /// `Tape::logit_row(b, t)` of each.
    #[inline(always)]
    pub fn logit_rows(&self) -> &[usize] {
        &self.logit_rows[..self.size]
    }

    /// Each sequence with its row.
    #[inline(always)]
    pub fn sequences_and_rows(&self) -> impl Iterator<Item = (usize, usize)> {
        self.sequences().iter().copied().zip(self.rows().iter().copied())
    }
}

/// A matrix with one row per sequence and step.
pub struct Field<F> {
    pub data: Vec<F>,
    pub stride: usize,
}

impl<F: Float> Field<F> {
    fn resize(&mut self, rows: usize, stride: usize) {
        self.stride = stride;
        self.data.resize(rows * stride, F::ZERO);
    }

    #[inline(always)]
    pub fn row(&self, row: usize) -> &[F] {
        &self.data[row * self.stride..][..self.stride]
    }

    #[inline(always)]
    pub fn row_mut(&mut self, row: usize) -> &mut [F] {
        &mut self.data[row * self.stride..][..self.stride]
    }

    /// Where some rows start in `data`, as `product` takes them.
    #[inline(always)]
    pub fn starts(&self, rows: &[usize]) -> [usize; MICRO_BATCH] {
        let mut starts = [0; MICRO_BATCH];
        for (start, row) in starts.iter_mut().zip(rows) {
            *start = row * self.stride;
        }
        starts
    }

    /// One row to read and another to write.
    #[inline(always)]
    pub fn pair(&mut self, from: usize, to: usize) -> (&[F], &mut [F]) {
        let stride = self.stride;
        if from < to {
            let (low, high) = self.data.split_at_mut(to * stride);
            (&low[from * stride..][..stride], &mut high[..stride])
        } else {
            let (low, high) = self.data.split_at_mut(from * stride);
            (&high[..stride], &mut low[to * stride..][..stride])
        }
    }
}

impl<F> Default for Field<F> {
    fn default() -> Self {
        Field { data: vec![], stride: 0 }
    }
}

/// The fields of one controller layer.
#[derive(Default)]
pub struct LayerTape<F: Float> {
    /// [1, what comes from below, prev_h]: the input of the layer's matrix. (K)
    pub z: Field<F>,
    /// Forward: gates i, f, g, o after their activation (4H), or a feed-forward layer's hidden (H).
    /// Backward: the gradient before the activation.
    pub gates: Field<F>,
    pub cell: Field<F>,      // (H)
    pub tanh_cell: Field<F>, // (H)
}

/// The fields of the addressing, all heads side by side.
#[derive(Default)]
pub struct AddressingTape<F: Float> {
    pub inverse_norm: Field<F>, // 1 / |M_i| of M_{t-1} (N')
    pub similarity: Field<F>,   // K, Eq. 6 (R + W, N')
    pub content: Field<F>,      // w^c, Eq. 5 (R + W, N')
    pub shifted: Field<F>,      // w~ + epsilon, Eq. 8 (R + W, N')
    pub weighting: Field<F>,    // w, Eq. 9 (R + W, N')
}

impl<F: Float> AddressingTape<F> {
    /// What belongs to one head in the step of a row, which is not that of the step before, `prev`.
    #[inline(always)]
    pub fn head(&mut self, plan: &Plan, head: usize, prev: usize, row: usize) -> HeadTape<'_, F> {
        let range = plan.weighting_of(head);
        let (prev_weighting, weighting) = self.weighting.pair(prev, row);
        HeadTape {
            inverse_norm: self.inverse_norm.row(row),
            prev_weighting: &prev_weighting[range.clone()],
            similarity: &mut self.similarity.row_mut(row)[range.clone()],
            content: &mut self.content.row_mut(row)[range.clone()],
            shifted: &mut self.shifted.row_mut(row)[range.clone()],
            weighting: &mut weighting[range],
        }
    }
}

#[derive(Default)]
pub struct Tape<F: Float> {
    /// Steps of each sequence.
    pub lengths: Vec<usize>,
    starts: Vec<usize>,
    keeps_every_step: bool,
    pub layers: Vec<LayerTape<F>>,
    /// [1, h, r_1..R]: the input of the heads' and the output's matrix. (1 + H + R M)
    pub shown: Field<F>,
    /// Forward: what the heads emit, after the activations. Backward: the gradient before them. (the heads' `outputs`)
    pub heads: Field<F>,
    pub addressing: AddressingTape<F>,
    /// Forward: logits. Backward: their gradient. Row start + t - 1 belongs to step t, for every step. (Y)
    pub logits: Field<F>,
    /// The logits as the forward pass left them, rows of Y.
    pub outputs: Vec<f32>,
    logit_starts: Vec<usize>,
    /// M_t of each sequence at the current step, stored (M, N').
    pub memory: Field<F>,
    /// Steps between two snapshots, about sqrt(T).
    pub segment: usize,
    /// M_0, M_segment, M_2segment, ... of each sequence. (M, N')
    pub snapshots: Field<F>,
    snapshot_starts: Vec<usize>,
    pub scratch: Scratch<F>,
}

/// Buffers that live within a step, and the gradients that pass from step to step.
#[derive(Default)]
pub struct Scratch<F: Float> {
    pub hidden: Vec<F>,        // (H)
    pub gated: Vec<F>,         // w^g, Eq. 7, a ring buffer (N' + S - 1)
    pub d_weighting: Field<F>, // from step t + 1 through Eq. 7, by sequence (R + W, N')
    pub d_memory: Field<F>,    // of M_t, by sequence (M, N')
    pub d_reads: Field<F>,     // by sequence (R, M)
    pub d_shown: Field<F>,     // by sequence (1 + H + R M)
    pub d_z: Vec<Field<F>>,    // of each layer, by sequence: [r or the h below, prev_h] (K - passed)
    pub d_cell: Vec<Field<F>>, // of each layer, by sequence (H)
    pub replayed: Field<F>,    // memories of the current segment, by sequence and step (M, N')
    pub between: Field<F>,     // memories between the write heads of one step (M, N')
    pub d_shifted: Vec<F>,     // a ring buffer (N' + S - 1)
    pub row_factor: Vec<F>,    // (N')
    pub d_dots: Vec<F>,        // of key . M_i, then the read weightings (R + W + R, N')
    pub factors: Vec<F>,       // keys, then d_reads (R + W + R, M)
    pub d_heads: Vec<F>,       // of what the heads emit, after the activations
}

impl<F: Float> Tape<F> {
    /// Makes room for up to `MICRO_BATCH` sequences of the given steps. A tape that keeps every step has a row for
    /// each. Else each sequence has two rows, which its steps use in turn, and no backward pass can follow.
    pub fn reset(&mut self, plan: &Plan, lengths: &[usize], keeps_every_step: bool) {
        self.lengths.clear();
        self.lengths.extend_from_slice(lengths);
        self.keeps_every_step = keeps_every_step;
        self.segment = (self.steps() as f64).sqrt().ceil().max(1.0) as usize;
        let rows =
            accumulate(&mut self.starts, lengths.iter().map(|steps| if keeps_every_step { steps + 1 } else { 2 }));
        let logit_rows = accumulate(&mut self.logit_starts, lengths.iter().copied());
        let segment = self.segment;
        let snapshots = accumulate(
            &mut self.snapshot_starts,
            lengths.iter().map(|steps| if keeps_every_step { steps.div_ceil(segment) } else { 0 }),
        );

        let (heads, cells) = (plan.all_heads() * plan.n_stride, plan.m * plan.n_stride);
        self.layers.resize_with(plan.controller.len(), LayerTape::default);
        for (layer, dense) in self.layers.iter_mut().zip(&plan.controller) {
            layer.z.resize(rows, dense.input_stride);
            layer.gates.resize(rows, dense.output_stride);
            layer.cell.resize(rows, plan.h);
            layer.tanh_cell.resize(rows, plan.h);
        }
        self.shown.resize(rows, plan.output.input_stride);
        self.heads.resize(rows, plan.heads.output_stride);
        let AddressingTape { inverse_norm, similarity, content, shifted, weighting } = &mut self.addressing;
        inverse_norm.resize(rows, plan.n_stride);
        for field in [similarity, content, shifted, weighting] {
            field.resize(rows, heads);
        }
        self.logits.resize(logit_rows, plan.output.output_stride);
        self.memory.resize(lengths.len(), cells);
        self.snapshots.resize(snapshots, cells);
        self.scratch.hidden.resize(plan.h, F::ZERO);
        self.scratch.gated.resize(plan.n_stride + plan.s.saturating_sub(1), F::ZERO);
    }

    /// The longest sequence's steps.
    pub fn steps(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// Step t of all sequences that have one; t counts from 1.
    #[inline(always)]
    pub fn step(&self, t: usize) -> Step {
        let nowhere = [0; MICRO_BATCH];
        let mut step = Step { t, size: 0, sequences: nowhere, rows: nowhere, logit_rows: nowhere };
        for b in (0..self.lengths.len()).filter(|&b| self.lengths[b] >= t) {
            step.sequences[step.size] = b;
            step.rows[step.size] = self.row(b, t);
            step.logit_rows[step.size] = self.logit_row(b, t);
            step.size += 1;
        }
        step
    }

    #[inline(always)]
    pub fn row(&self, b: usize, t: usize) -> usize {
        self.starts[b] + if self.keeps_every_step { t } else { t % 2 }
    }

    #[inline(always)]
    pub fn logit_row(&self, b: usize, t: usize) -> usize {
        self.logit_starts[b] + t - 1
    }

    /// The snapshot of sequence b that holds the memory after step `segment * index`.
    #[inline(always)]
    pub fn snapshot_row(&self, b: usize, index: usize) -> usize {
        self.snapshot_starts[b] + index
    }

    /// Whether there is a row for each step, and snapshots of the memory.
    pub fn keeps_every_step(&self) -> bool {
        self.keeps_every_step
    }
}

impl<F: Float> Scratch<F> {
    /// Zeroes the gradients that pass from step to step, for `size` sequences and segments of `segment` steps.
    pub fn reset(&mut self, plan: &Plan, size: usize, segment: usize) {
        let (heads, cells) = (plan.all_heads(), plan.m * plan.n_stride);
        for (field, step) in [
            (&mut self.d_weighting, heads * plan.n_stride),
            (&mut self.d_memory, cells),
            (&mut self.d_reads, plan.read_heads * plan.m),
        ] {
            field.data.clear();
            field.resize(size, step);
        }
        for fields in [&mut self.d_z, &mut self.d_cell] {
            fields.resize_with(plan.controller.len(), Field::default);
            fields.iter_mut().for_each(|field| field.data.clear());
        }
        for ((d_z, d_cell), dense) in self.d_z.iter_mut().zip(&mut self.d_cell).zip(&plan.controller) {
            d_z.resize(size, dense.passed_stride);
            d_cell.resize(size, plan.h);
        }
        self.d_shown.resize(size, plan.output.passed_stride);
        self.replayed.resize(size * segment, cells);
        self.between.resize(plan.write_heads.saturating_sub(1), cells);
        for (vector, length) in [
            (&mut self.d_shifted, plan.n_stride + plan.s.saturating_sub(1)),
            (&mut self.row_factor, plan.n_stride),
            (&mut self.d_dots, (heads + plan.read_heads) * plan.n_stride),
            (&mut self.factors, (heads + plan.read_heads) * plan.m),
            (&mut self.d_heads, plan.heads.outputs),
        ] {
            vector.resize(length, F::ZERO);
        }
    }
}

/// The values of one sequence of `steps` steps, forward and backward: what `reset` of tape and scratch make room for.
pub fn values(plan: &Plan, steps: u128) -> u128 {
    let sizes = |sizes: &[usize]| sizes.iter().map(|size| *size as u128).sum::<u128>();
    let rows = plan.all_heads() * plan.n_stride;
    let layer = |dense: &Dense| sizes(&[dense.input_stride, dense.output_stride, 2 * plan.h]);
    let step = plan.controller.iter().map(layer).sum::<u128>()
        + sizes(&[plan.output.input_stride, plan.heads.output_stride, 4 * rows, plan.n_stride]);
    let logits = sizes(&[plan.output.output_stride, plan.y]);
    let segment = (steps as f64).sqrt().ceil().max(1.0) as u128;
    let memories = 2 + segment + steps.div_ceil(segment) + plan.write_heads.saturating_sub(1) as u128;
    let layers = plan.controller.iter().map(|dense| dense.passed_stride + plan.h).sum();
    let ring = plan.n_stride + plan.s.saturating_sub(1);
    let all = plan.all_heads() + plan.read_heads;
    let passed = [rows, plan.read_heads * plan.m, plan.output.passed_stride, layers];
    let within = [plan.h, 2 * ring, plan.n_stride, all * (plan.n_stride + plan.m), plan.heads.outputs];
    (steps + 1) * step + steps * logits + memories * (plan.m * plan.n_stride) as u128 + sizes(&passed) + sizes(&within)
}

/// The start of each part when parts of the given sizes follow one another; returns their sum.
fn accumulate(starts: &mut Vec<usize>, sizes: impl Iterator<Item = usize>) -> usize {
    starts.clear();
    sizes.fold(0, |start, size| {
        starts.push(start);
        start + size
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Recipe;
    use crate::model::Spec;

    #[test]
    fn the_values_of_a_sequence_are_those_that_there_is_room_for() {
        let ntm = |more: &str| {
            format!(
                r#"{{"model": {{"memory": {{"rows": 13, "width": 5}}, "controller": {{"hidden": 9, "layers": 2}}, {more} "read_heads": 2}}}}"#
            )
        };
        for text in [ntm(""), ntm(r#""write_heads": 3, "#), r#"{"model": {"kind": "lstm", "hidden": 7}}"#.to_string()] {
            let recipe = Recipe::parse(&text, &[]).unwrap();
            let plan = Plan::new(Spec::new(&recipe.model, 4, 3));
            for steps in [1, 7, 50] {
                let mut tape = Tape::<f32>::default();
                tape.reset(&plan, &[steps], true);
                tape.scratch.reset(&plan, 1, tape.segment);
                assert_eq!(
                    values(&plan, steps as u128),
                    room(&tape) + (steps * plan.y) as u128,
                    "{text}, {steps} steps"
                );
            }
        }
    }

    /// All values of a tape but its outputs, which the forward pass makes room for.
    fn room(tape: &Tape<f32>) -> u128 {
        #[rustfmt::skip]
        let Tape {
            layers, shown, heads, addressing, logits, memory, snapshots, scratch,
            lengths: _, starts: _, keeps_every_step: _, outputs: _, logit_starts: _, segment: _, snapshot_starts: _,
        } = tape;
        let AddressingTape { inverse_norm, similarity, content, shifted, weighting } = addressing;
        let fields = [shown, heads, similarity, content, shifted, weighting, inverse_norm, logits, memory, snapshots];
        let layers = layers.iter().flat_map(|LayerTape { z, gates, cell, tanh_cell }| [z, gates, cell, tanh_cell]);
        #[rustfmt::skip]
        let Scratch {
            hidden, gated, d_weighting, d_memory, d_reads, d_shown, d_z, d_cell, replayed, between, d_shifted, row_factor,
            d_dots, factors, d_heads,
        } = scratch;
        let passed = [d_weighting, d_memory, d_reads, d_shown, replayed, between].into_iter();
        let fields = fields.into_iter().chain(layers).chain(passed).chain(d_z).chain(d_cell);
        let vectors = [hidden, gated, d_shifted, row_factor, d_dots, factors, d_heads];
        let values = fields.map(|field| field.data.len()).chain(vectors.map(Vec::len));
        values.sum::<usize>() as u128
    }
}
