//! The forward pass of a micro-batch: the time loop, sections in the order of the paper.

use super::addressing::{ShiftMix, activate, address, inverse_norms};
use super::controller::{feedforward, lstm};
use super::crew::Crew;
use super::memory::{Edit, read, write};
use super::product::{Panels, Rows, product};
use super::tape::{Field, Step, Tape};
use super::weights::{Matrix, Weights};
use crate::fused::plan::Plan;
use crate::simd::{Arch, Float, LANES};
use crate::tasks::Batch;

/// The sequences of a batch that a tape serves: `first..first + tape.lengths.len()`.
#[derive(Clone, Copy)]
pub struct Slice<'a> {
    pub batch: &'a Batch,
    pub first: usize,
}

impl Slice<'_> {
    /// The row of sequence b (of the slice) at step t, which counts from 1, in the batch's (T, B, ..).
    #[inline(always)]
    pub fn row(&self, b: usize, t: usize) -> usize {
        (t - 1) * self.batch.size() + self.first + b
    }
}

/// Runs all steps of the slice. Leaves the logits in the tape, and all rows if it keeps every step.
#[inline(always)]
pub fn forward<F: Float, A: Arch>(
    plan: &Plan,
    weights: &Weights<F>,
    crew: &mut Crew,
    slice: Slice,
    tape: &mut Tape<F>,
) {
    start(plan, weights, tape);
    let mix = ShiftMix::new(slice.batch, plan.s);
    for t in 1..=tape.steps() {
        let step = tape.step(t);
        let rows = step.rows();
        controller::<F, A>(plan, weights, crew, slice, tape, &step);
        apply::<F, A>(weights.heads.of(&plan.heads), &tape.shown, rows, &mut tape.heads, rows);
        if plan.n > 0 {
            for &b in step.sequences() {
                if tape.keeps_every_step() && (t - 1).is_multiple_of(tape.segment) {
                    let snapshot = tape.snapshot_row(b, (t - 1) / tape.segment);
                    tape.snapshots.row_mut(snapshot).copy_from_slice(tape.memory.row(b));
                }
                memory::<F, A>(plan, &weights.padding, mix, tape, b, t);
            }
        }
        apply::<F, A>(weights.output.of(&plan.output), &tape.shown, rows, &mut tape.logits, step.logit_rows());
    }
}

/// The state before the first step.
#[inline(always)]
fn start<F: Float>(plan: &Plan, weights: &Weights<F>, tape: &mut Tape<F>) {
    for b in 0..tape.lengths.len() {
        let row = tape.row(b, 0);
        tape.addressing.weighting.row_mut(row).copy_from_slice(&weights.weighting);
        tape.memory.row_mut(b).copy_from_slice(&weights.memory);
        tape.shown.row_mut(row)[1 + plan.h..][..weights.read.len()].copy_from_slice(&weights.read);
        if plan.recurrent {
            for (l, layer) in tape.layers.iter_mut().enumerate() {
                layer.cell.row_mut(row).copy_from_slice(&weights.cell[l * plan.h..][..plan.h]);
            }
        }
    }
}

/// Row by row of a field, W z for the z of another. (K) -> (J)
#[inline(always)]
fn apply<F: Float, A: Arch>(matrix: Matrix<F>, z: &Field<F>, z_rows: &[usize], out: &mut Field<F>, out_rows: &[usize]) {
    let (a_at, c_at) = (z.starts(z_rows), out.starts(out_rows));
    let (a, c_at) = (Rows { data: &z.data, at: &a_at[..z_rows.len()], stride: 1 }, &c_at[..out_rows.len()]);
    let dense = matrix.dense;
    product::<F, A>(false, &mut out.data, c_at, dense.output_stride, a, dense.inputs, matrix.transposed());
}

/// W z by two threads. z (K) -> out (J, up to its stride)
#[inline(always)]
fn share<F: Float, A: Arch>(crew: &mut Crew, matrix: Matrix<F>, z: &[F], out: &mut [F]) {
    let (inner, w) = (matrix.dense.inputs, matrix.transposed());
    let cut = (matrix.dense.output_stride / 2).next_multiple_of(LANES);
    let z = Rows { data: z, at: &[0], stride: 1 };
    let (here, beside) = out.split_at_mut(cut);
    crew.join(
        || product::<F, A>(false, beside, &[0], beside.len(), z, inner, w.from(cut)),
        || product::<F, A>(false, here, &[0], here.len(), z, inner, w),
    );
}

/// All layers of the controller: from the input and the previous reads to h in `shown`.
#[inline(always)]
fn controller<F: Float, A: Arch>(
    plan: &Plan,
    weights: &Weights<F>,
    crew: &mut Crew,
    slice: Slice,
    tape: &mut Tape<F>,
    step: &Step,
) {
    for l in 0..plan.controller.len() {
        take_in(plan, weights, slice, tape, step, l);
        let (matrix, layer) = (weights.controller[l].of(&plan.controller[l]), &mut tape.layers[l]);
        match step.rows() {
            [row] if crew.threads() > 1 && matrix.dense.output_stride > LANES => {
                share::<F, A>(crew, matrix, layer.z.row(*row), layer.gates.row_mut(*row));
            }
            rows => apply::<F, A>(matrix, &layer.z, rows, &mut layer.gates, rows),
        }
        cells::<F, A>(plan, tape, step, l);
    }
}

/// Completes a layer's z = [1, what comes from below, prev_h]. The layer below has already put its h there, and this
/// layer its own h at the step before. What is missing is the 1, the lowest layer's [input, prev_r], and prev_h at the
/// first step.
#[inline(always)]
fn take_in<F: Float>(plan: &Plan, weights: &Weights<F>, slice: Slice, tape: &mut Tape<F>, step: &Step, l: usize) {
    let (h, below) = (plan.h, plan.below(l));
    for (b, row) in step.sequences_and_rows() {
        let prev = tape.row(b, step.t - 1);
        let z = tape.layers[l].z.row_mut(row);
        z[0] = F::ONE;
        if l == 0 {
            let input = &slice.batch.inputs[slice.row(b, step.t) * plan.x..][..plan.x];
            for (z, input) in z[1..].iter_mut().zip(input) {
                *z = F::of(*input as f64);
            }
            z[1 + plan.x..1 + below].copy_from_slice(&tape.shown.row(prev)[1 + h..][..plan.read_heads * plan.m]);
        }
        if plan.recurrent && step.t == 1 {
            z[1 + below..][..h].copy_from_slice(&weights.hidden[l * h..][..h]);
        }
    }
}

/// A layer's h from W z, on its way to the next step, and up: to the layer above or, from the last, to `shown`.
#[inline(always)]
fn cells<F: Float, A: Arch>(plan: &Plan, tape: &mut Tape<F>, step: &Step, l: usize) {
    let (h, below) = (plan.h, plan.below(l));
    for (b, row) in step.sequences_and_rows() {
        let (prev, next) = (tape.row(b, step.t - 1), tape.row(b, (step.t + 1).min(tape.lengths[b])));
        let hidden = &mut tape.scratch.hidden;
        let layer = &mut tape.layers[l];
        if plan.recurrent {
            let (prev_c, c) = layer.cell.pair(prev, row);
            lstm::<F, A>(layer.gates.row_mut(row), prev_c, c, layer.tanh_cell.row_mut(row), hidden);
            if step.t < tape.lengths[b] {
                layer.z.row_mut(next)[1 + below..][..h].copy_from_slice(hidden);
            }
        } else {
            feedforward::<F, A>(layer.gates.row_mut(row), hidden);
        }
        match tape.layers.get_mut(l + 1) {
            Some(above) => above.z.row_mut(row)[1..1 + h].copy_from_slice(hidden),
            None => {
                let shown = tape.shown.row_mut(row);
                shown[0] = F::ONE;
                shown[1..1 + h].copy_from_slice(hidden);
            }
        }
    }
}

/// All heads of one sequence in one step: addressing on M_{t-1}, reads from it, then the writes in head order.
#[inline(always)]
pub fn memory<F: Float, A: Arch>(plan: &Plan, padding: &[F], mix: ShiftMix<F>, tape: &mut Tape<F>, b: usize, t: usize) {
    let (stride, m, prev, row) = (plan.n_stride, plan.m, tape.row(b, t - 1), tape.row(b, t));
    let (heads, addressing) = (tape.heads.row_mut(row), &mut tape.addressing);
    for (head, from) in plan.head_at.iter().enumerate() {
        activate::<F, A>(plan, &mut heads[*from..], head >= plan.read_heads, mix);
    }
    let memory = tape.memory.row_mut(b);
    inverse_norms::<F, A>(memory, addressing.inverse_norm.row_mut(row));
    // Eq. 6: the dot products of all keys with all rows
    let (keys, rows) = (Rows { data: heads, at: &plan.head_at, stride: 1 }, Panels::rows(memory, 0, stride));
    product::<F, A>(false, addressing.similarity.row_mut(row), &plan.weighting_at, stride, keys, m, rows);
    for (head, from) in plan.head_at.iter().enumerate() {
        let vectors = addressing.head(plan, head, prev, row);
        address::<F, A>(plan, &heads[*from..], vectors, padding, &mut tape.scratch.gated);
    }
    let weightings = addressing.weighting.row(row);
    // Eq. 2: r = sum_i w(i) M_i
    let reads = &mut tape.shown.row_mut(row)[1 + plan.h..];
    for head in 0..plan.read_heads {
        read::<F, A>(memory, &weightings[plan.weighting_of(head)], &mut reads[head * m..(head + 1) * m]);
    }
    // Eq. 3, 4: M_i <- M_i (1 - w(i) e) + w(i) a
    for head in plan.read_heads..plan.all_heads() {
        write::<F, A>(memory, Edit::of(plan, head, heads, weightings));
    }
}
