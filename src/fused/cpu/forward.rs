//! The forward pass of a micro-batch: the time loop, sections in the order of the paper.

use super::addressing::{Kept, activate, address, inverse_norms};
use super::controller::{feedforward, lstm};
use super::crew::Crew;
use super::memory::{read, write};
use super::product::{PANEL, Panels, Rows, product};
use super::tape::{Field, Tape};
use super::weights::{Packed, Weights};
use crate::fused::plan::{Dense, Plan};
use crate::simd::Arch;
use crate::simd::Float;
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

/// Runs all steps of the slice and leaves logits and, if the tape keeps them, all rows in the tape.
#[inline(always)]
pub fn forward<F: Float, A: Arch>(
    plan: &Plan,
    weights: &Weights<F>,
    crew: &mut Crew,
    slice: Slice,
    tape: &mut Tape<F>,
) {
    start(plan, weights, tape);
    let mix = slice.batch.mix(plan.s).map(F::of);
    let [mut active, mut rows, mut logit_rows] = [(); 3].map(|()| Vec::<usize>::with_capacity(MICRO_BATCH));
    for t in 1..=tape.steps() {
        active.clear();
        active.extend((0..tape.lengths.len()).filter(|&b| tape.lengths[b] >= t));
        rows.clear();
        rows.extend(active.iter().map(|&b| tape.row(b, t)));

        controller::<F, A>(plan, weights, crew, slice, tape, t, &active, &rows);
        apply::<F, A>(&plan.heads, &weights.heads, &tape.shown, &rows, &mut tape.heads, &rows);
        for &b in &active {
            if tape.kept() && (t - 1).is_multiple_of(tape.segment) {
                let snapshot = tape.snapshot_row(b, (t - 1) / tape.segment);
                tape.snapshots.row_mut(snapshot).copy_from_slice(tape.memory.row(b));
            }
            memory::<F, A>(plan, &weights.padding, mix, tape, b, t);
        }
        logit_rows.clear();
        logit_rows.extend(active.iter().map(|&b| tape.logit_row(b, t)));
        apply::<F, A>(&plan.output, &weights.output, &tape.shown, &rows, &mut tape.logits, &logit_rows);
    }
}

/// The state before the first step.
#[inline(always)]
fn start<F: Float>(plan: &Plan, weights: &Weights<F>, tape: &mut Tape<F>) {
    for b in 0..tape.lengths.len() {
        let row = tape.row(b, 0);
        tape.weighting.row_mut(row).copy_from_slice(&weights.weighting);
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
fn apply<F: Float, A: Arch>(
    dense: &Dense,
    packed: &Packed<F>,
    z: &Field<F>,
    z_rows: &[usize],
    out: &mut Field<F>,
    out_rows: &[usize],
) {
    let a_at: [usize; MICRO_BATCH] = offsets(z_rows, z.stride);
    let c_at: [usize; MICRO_BATCH] = offsets(out_rows, out.stride);
    let a = Rows { data: &z.data, at: &a_at[..z_rows.len()], stride: 1 };
    let (c_at, w) = (&c_at[..out_rows.len()], packed.transposed(dense));
    product::<F, A>(false, &mut out.data, c_at, dense.output_stride, a, dense.inputs, w);
}

/// W z by two threads. z (K) -> out (J, up to its stride)
#[inline(always)]
fn share<F: Float, A: Arch>(crew: &mut Crew, dense: &Dense, packed: &Packed<F>, z: &[F], out: &mut [F]) {
    let cut = (dense.output_stride / 2).next_multiple_of(PANEL);
    let (z, w) = (Rows { data: z, at: &[0], stride: 1 }, packed.transposed(dense));
    let (here, beside) = out.split_at_mut(cut);
    crew.join(
        || product::<F, A>(false, beside, &[0], beside.len(), z, dense.inputs, w.from(cut)),
        || product::<F, A>(false, here, &[0], here.len(), z, dense.inputs, w),
    );
}

/// The most sequences that step together and share each load of the weights.
pub const MICRO_BATCH: usize = 4;

#[inline(always)]
pub fn offsets(rows: &[usize], stride: usize) -> [usize; MICRO_BATCH] {
    let mut offsets = [0; MICRO_BATCH];
    for (offset, row) in offsets.iter_mut().zip(rows) {
        *offset = row * stride;
    }
    offsets
}

/// All layers of the controller: from the input and the previous reads to h in `shown`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn controller<F: Float, A: Arch>(
    plan: &Plan,
    weights: &Weights<F>,
    crew: &mut Crew,
    slice: Slice,
    tape: &mut Tape<F>,
    t: usize,
    active: &[usize],
    rows: &[usize],
) {
    let h = plan.h;
    for l in 0..plan.controller.len() {
        let below = plan.below(l);
        for (&b, &row) in active.iter().zip(rows) {
            let prev = tape.row(b, t - 1);
            let z = tape.layers[l].z.row_mut(row);
            z[0] = F::ONE;
            if l == 0 {
                let input = &slice.batch.inputs[slice.row(b, t) * plan.x..][..plan.x];
                for (z, input) in z[1..].iter_mut().zip(input) {
                    *z = F::of(*input as f64);
                }
                z[1 + plan.x..1 + below].copy_from_slice(&tape.shown.row(prev)[1 + h..][..plan.read_heads * plan.m]);
            } // else the layer below has put its h there
            if plan.recurrent && t == 1 {
                z[1 + below..][..h].copy_from_slice(&weights.hidden[l * h..][..h]);
            } // else this layer has, at the step before
        }
        let layer = &mut tape.layers[l];
        let (dense, packed) = (&plan.controller[l], &weights.controller[l]);
        match rows {
            [row] if crew.threads() > 1 && dense.output_stride > PANEL => {
                share::<F, A>(crew, dense, packed, layer.z.row(*row), layer.gates.row_mut(*row));
            }
            _ => apply::<F, A>(dense, packed, &layer.z, rows, &mut layer.gates, rows),
        }
        for (&b, &row) in active.iter().zip(rows) {
            let (prev, next) = (tape.row(b, t - 1), tape.row(b, (t + 1).min(tape.lengths[b])));
            let hidden = &mut tape.scratch.hidden;
            let layer = &mut tape.layers[l];
            if plan.recurrent {
                let (prev_c, c) = layer.cell.pair(prev, row);
                lstm::<F, A>(layer.gates.row_mut(row), prev_c, c, layer.tanh_cell.row_mut(row), hidden);
                if t < tape.lengths[b] {
                    tape.layers[l].z.row_mut(next)[1 + below..][..h].copy_from_slice(hidden);
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
}

/// All heads of one sequence in one step: addressing on M_{t-1}, reads from it, then the writes in head order.
#[inline(always)]
fn memory<F: Float, A: Arch>(plan: &Plan, padding: &[F], mix: [F; 2], tape: &mut Tape<F>, b: usize, t: usize) {
    let (stride, m, at, prev, row) = (plan.n_stride, plan.m, plan.emitted, tape.row(b, t - 1), tape.row(b, t));
    if stride == 0 {
        return;
    }
    let heads = tape.heads.row_mut(row);
    for (head, from) in plan.head_at.iter().enumerate() {
        activate::<F, A>(plan, &mut heads[*from..], head >= plan.read_heads, mix);
    }
    let memory = tape.memory.row_mut(b);
    inverse_norms::<F, A>(memory, tape.inverse_norm.row_mut(row));
    // Eq. 6: the dot products of all keys with all rows
    let keys = Rows { data: heads, at: &plan.head_at, stride: 1 };
    product::<F, A>(
        false,
        tape.similarity.row_mut(row),
        &plan.weighting_at,
        stride,
        keys,
        m,
        Panels::rows(memory, 0, stride),
    );
    let (prev_weightings, weightings) = tape.weighting.pair(prev, row);
    for (head, from) in plan.head_at.iter().enumerate() {
        let range = head * stride..(head + 1) * stride;
        let kept = Kept {
            similarity: &mut tape.similarity.row_mut(row)[range.clone()],
            content: &mut tape.content.row_mut(row)[range.clone()],
            shifted: &mut tape.shifted.row_mut(row)[range.clone()],
            weighting: &mut weightings[range.clone()],
        };
        let (norms, prev, gated) = (tape.inverse_norm.row(row), &prev_weightings[range], &mut tape.scratch.gated);
        address::<F, A>(plan, &heads[*from..], norms, prev, kept, padding, gated);
    }
    // Eq. 2: r = sum_i w(i) M_i
    let reads = &mut tape.shown.row_mut(row)[1 + plan.h..];
    for head in 0..plan.read_heads {
        read::<F, A>(memory, &weightings[head * stride..(head + 1) * stride], &mut reads[head * m..(head + 1) * m]);
    }
    // Eq. 3, 4: M_i <- M_i (1 - w(i) e) + w(i) a
    for head in plan.read_heads..plan.all_heads() {
        let emitted = &heads[plan.head_at[head]..];
        write::<F, A>(
            memory,
            &weightings[head * stride..(head + 1) * stride],
            &emitted[at.erase()],
            &emitted[at.add()],
        );
    }
}
