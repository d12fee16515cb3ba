//! The backward pass of a micro-batch: the sections of `forward` in mirrored order. `derivation.md` derives each line.

use super::addressing::{BackwardScratch, Kept, activate_backward, address_backward};
use super::controller::{feedforward_backward, lstm_backward};
use super::crew::Crew;
use super::forward::{MICRO_BATCH, Slice, offsets};
use super::memory::{add_scaled_rows, write, write_backward, write_into};
use super::product::{PANEL, Panels, Rows, product};
use super::tape::{Field, LayerTape, Scratch, Tape};
use super::vector::{axpy, dot_columns};
use super::weights::{Packed, Weights};
use crate::fused::plan::{Dense, Plan};
use crate::simd::{self, Arch, Float, Work};
use crate::tasks::Loss;
use std::mem::{swap, take};
use std::ops::Range;

/// On entry the tape holds a forward pass. On return `logits`, `heads` and the layers' `gates` hold the gradients before
/// their activations (from which the weight gradients follow), and the scratch holds those of the first state.
/// `loss_weights` (T, B) are those of the whole batch.
///
/// While the heads of a step are gone through, a second thread of the crew takes the gradients of the step after it through the
/// recurrent weights: they are most of all weights, and nothing waits for them before the controller of this step does.
#[inline(always)]
pub fn backward<F: Float, A: Arch>(
    plan: &Plan,
    weights: &Weights<F>,
    crew: &mut Crew,
    slice: Slice,
    loss_weights: &[f32],
    tape: &mut Tape<F>,
) {
    let size = tape.lengths.len();
    tape.scratch.reset(plan, size, tape.segment);
    loss::<F, A>(plan, slice, loss_weights, tape);
    let mix = slice.batch.mix(plan.s).map(F::of);
    let [mut active, mut rows] = [(); 2].map(|()| Vec::<usize>::with_capacity(MICRO_BATCH));
    let [mut next_active, mut next_rows] = [(); 2].map(|()| Vec::<usize>::with_capacity(MICRO_BATCH)); // of step t + 1
    let beside = plan.recurrent && crew.threads() > 1;
    let cuts: Vec<usize> = (0..plan.controller.len()).map(|l| cut(plan, l, beside)).collect();
    let (mut layers, mut d_z) = (take(&mut tape.layers), take(&mut tape.scratch.d_z));
    for t in (1..=tape.steps()).rev() {
        swap(&mut active, &mut next_active);
        swap(&mut rows, &mut next_rows);
        active.clear();
        active.extend((0..size).filter(|&b| tape.lengths[b] >= t));
        rows.clear();
        rows.extend(active.iter().map(|&b| tape.row(b, t)));

        let above = Above { plan, weights, slice, loss_weights, mix, tape, t, active: &active, rows: &rows };
        if beside && !next_active.is_empty() {
            let of_next_step = || recurrent::<F, A>(plan, weights, &cuts, &layers, &next_rows, &mut d_z, &next_active);
            crew.join(of_next_step, || simd::run(A::LEVEL, above));
        } else {
            simd::run(A::LEVEL, above);
        }
        controller::<F, A>(plan, weights, &cuts, &mut layers, &mut d_z, tape, t, &active, &rows);
    }
    recurrent::<F, A>(plan, weights, &cuts, &layers, &rows, &mut d_z, &active);
    (tape.layers, tape.scratch.d_z) = (layers, d_z);
}

/// What a step has above its controller, backwards: the output, the heads and the memory. Leaves d_h in `d_shown`.
struct Above<'a, F: Float> {
    plan: &'a Plan,
    weights: &'a Weights<F>,
    slice: Slice<'a>,
    loss_weights: &'a [f32],
    mix: [F; 2],
    tape: &'a mut Tape<F>,
    t: usize,
    active: &'a [usize],
    rows: &'a [usize],
}

impl<F: Float> Work for Above<'_, F> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Above { plan, weights, slice, loss_weights, mix, tape, t, active, rows } = self;
        output::<F, A>(plan, weights, slice, loss_weights, tape, t, active);
        if plan.n > 0 {
            for &b in active {
                if t == tape.lengths[b] || t.is_multiple_of(tape.segment) {
                    replay::<F, A>(plan, tape, b, t);
                }
                memory::<F, A>(plan, mix, tape, b, t);
            }
        }
        // heads = W [1, h]: d_h += W^T d_heads
        let (dense, d_shown) = (&plan.heads, &mut tape.scratch.d_shown);
        let columns = 0..dense.passed_stride;
        transposed::<F, A>(true, dense, &weights.heads, columns, &tape.heads, rows, d_shown, active);
    }
}

/// d_logits = weight (sigmoid(logits) - targets), or 2 weight (logits - targets), in place of the logits.
#[inline(always)]
fn loss<F: Float, A: Arch>(plan: &Plan, slice: Slice, loss_weights: &[f32], tape: &mut Tape<F>) {
    for b in 0..tape.lengths.len() {
        for t in 1..=tape.lengths[b] {
            let row = slice.row(b, t);
            let weight = F::of(loss_weights[row] as f64);
            let targets = &slice.batch.targets[row * plan.y..][..plan.y];
            let logit_row = tape.logit_row(b, t);
            let pairs = tape.logits.row_mut(logit_row).iter_mut().zip(targets);
            match slice.batch.loss {
                Loss::CrossEntropy => {
                    for (logit, target) in pairs {
                        *logit = weight * (logit.sigmoid::<A>() - F::of(*target as f64));
                    }
                }
                Loss::Squared => {
                    for (logit, target) in pairs {
                        *logit = F::of(2.0) * weight * (*logit - F::of(*target as f64));
                    }
                }
            }
        }
    }
}

/// Columns of d_z = W^T d_out, from `dense.passed` on, by sequence, or added to what is there. (J) -> (K - passed)
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn transposed<F: Float, A: Arch>(
    add: bool,
    dense: &Dense,
    packed: &Packed<F>,
    columns: Range<usize>,
    d_out: &Field<F>,
    rows: &[usize],
    d_z: &mut Field<F>,
    active: &[usize],
) {
    let a_at = offsets(rows, d_out.stride);
    let c_at = offsets(active, d_z.stride).map(|at| at + columns.start);
    let a = Rows { data: &d_out.data, at: &a_at[..rows.len()], stride: 1 };
    let w = packed.w(dense).from(columns.start);
    product::<F, A>(add, &mut d_z.data, &c_at[..active.len()], columns.len(), a, dense.outputs, w);
}

/// The first column of a layer's `d_z` that is left for beside the step before: the recurrent weights, from a panel's start on.
fn cut(plan: &Plan, l: usize, beside: bool) -> usize {
    if beside { plan.own(l).next_multiple_of(PANEL) } else { plan.controller[l].passed_stride }
}

/// What of all layers' d_z is for the step before.
#[inline(always)]
fn recurrent<F: Float, A: Arch>(
    plan: &Plan,
    weights: &Weights<F>,
    cuts: &[usize],
    layers: &[LayerTape<F>],
    rows: &[usize],
    d_z: &mut [Field<F>],
    active: &[usize],
) {
    for (l, (dense, layer)) in plan.controller.iter().zip(layers).enumerate() {
        let columns = cuts[l]..dense.passed_stride;
        transposed::<F, A>(false, dense, &weights.controller[l], columns, &layer.gates, rows, &mut d_z[l], active);
    }
}

/// logits = W [1, h, r]: d_shown. Steps without a target pass nothing back.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn output<F: Float, A: Arch>(
    plan: &Plan,
    weights: &Weights<F>,
    slice: Slice,
    loss_weights: &[f32],
    tape: &mut Tape<F>,
    t: usize,
    active: &[usize],
) {
    if active.iter().any(|&b| loss_weights[slice.row(b, t)] != 0.0) {
        let mut rows = [0; MICRO_BATCH];
        rows.iter_mut().zip(active).for_each(|(row, &b)| *row = tape.logit_row(b, t));
        let (dense, rows, d_shown) = (&plan.output, &rows[..active.len()], &mut tape.scratch.d_shown);
        let columns = 0..dense.passed_stride;
        transposed::<F, A>(false, dense, &weights.output, columns, &tape.logits, rows, d_shown, active);
    } else {
        for &b in active {
            tape.scratch.d_shown.row_mut(b).fill(F::ZERO);
        }
    }
}

/// Fills `replayed` with the memories M_first .. M_{t-1} of the segment that step t is the last of.
#[inline(always)]
fn replay<F: Float, A: Arch>(plan: &Plan, tape: &mut Tape<F>, b: usize, t: usize) {
    let (stride, at, segment) = (plan.n_stride, plan.emitted, tape.segment);
    let index = (t - 1) / segment;
    let snapshot = tape.snapshot_row(b, index);
    tape.scratch.replayed.row_mut(b * segment).copy_from_slice(tape.snapshots.row(snapshot));
    for (place, step) in (index * segment + 1..t).enumerate() {
        let row = tape.row(b, step);
        let (before, after) = tape.scratch.replayed.pair(b * segment + place, b * segment + place + 1);
        for head in plan.read_heads..plan.all_heads() {
            let emitted = &tape.heads.row(row)[plan.head_at[head]..];
            let weighting = &tape.weighting.row(row)[head * stride..(head + 1) * stride];
            let (erase, add) = (&emitted[at.erase()], &emitted[at.add()]);
            match head - plan.read_heads {
                0 => write_into::<F, A>(before, weighting, erase, add, after),
                _ => write::<F, A>(after, weighting, erase, add),
            }
        }
    }
}

/// The writes of one sequence in one step, backwards. On entry `d_memory` holds the gradient of M_t, on return that of M_{t-1} as
/// far as it goes through the writes. `found`: the row of M_{t-1} in `replayed`.
#[inline(always)]
fn writes<F: Float, A: Arch>(
    plan: &Plan,
    heads: &[F],
    weightings: &[F],
    scratch: &mut Scratch<F>,
    b: usize,
    found: usize,
) {
    let (stride, at, first) = (plan.n_stride, plan.emitted, plan.read_heads);
    let memory = scratch.replayed.row(found);
    let d_memory = scratch.d_memory.row_mut(b);
    let d_weightings = scratch.d_weighting.row_mut(b);
    // Eq. 3, 4: the writes in reverse head order, each with the memory it found
    for writer in first..plan.all_heads() - 1 {
        let (place, emitted) = (writer - first, &heads[plan.head_at[writer]..]);
        let (weighting, erase, add) =
            (&weightings[writer * stride..][..stride], &emitted[at.erase()], &emitted[at.add()]);
        if place == 0 {
            write_into::<F, A>(memory, weighting, erase, add, scratch.between.row_mut(0));
        } else {
            let (before, after) = scratch.between.pair(place - 1, place);
            write_into::<F, A>(before, weighting, erase, add, after);
        }
    }
    for head in (first..plan.all_heads()).rev() {
        let found = if head == first { memory } else { scratch.between.row(head - first - 1) };
        let emitted = &heads[plan.head_at[head]..];
        let (w, d_w) = (&weightings[head * stride..][..stride], &mut d_weightings[head * stride..][..stride]);
        let d_edit = &mut scratch.d_heads[plan.head_at[head]..][at.erase().start..at.add().end];
        let (d_erase, d_add) = d_edit.split_at_mut(plan.m);
        write_backward::<F, A>(found, w, &emitted[at.erase()], &emitted[at.add()], d_memory, d_w, d_erase, d_add);
    }
}

/// All heads of one sequence in one step, backwards: writes, reads, addressing, then what they leave for M_{t-1}.
#[inline(always)]
fn memory<F: Float, A: Arch>(plan: &Plan, mix: [F; 2], tape: &mut Tape<F>, b: usize, t: usize) {
    let (stride, m, at, all) = (plan.n_stride, plan.m, plan.emitted, plan.all_heads());
    let (prev, row) = (tape.row(b, t - 1), tape.row(b, t));
    let found = b * tape.segment + (t - 1) % tape.segment;
    let scratch = &mut tape.scratch;
    let heads = tape.heads.row_mut(row);
    let (prev_weightings, weightings) = tape.weighting.pair(prev, row);
    writes::<F, A>(plan, heads, weightings, scratch, b, found);

    let memory = scratch.replayed.row(found); // M_{t-1}
    let d_memory = scratch.d_memory.row_mut(b);
    let d_weightings = scratch.d_weighting.row_mut(b);
    // the gradients of reads: from the output, and from the controller's input at step t + 1
    let d_reads = scratch.d_reads.row_mut(b);
    for (d_read, d_shown) in d_reads.iter_mut().zip(&scratch.d_shown.row(b)[1 + plan.h..]) {
        *d_read += *d_shown;
    }
    // Eq. 2: d_w(i) += d_r . M_i, for all read heads
    let (readers, d_reads_by_head) =
        (&plan.weighting_at[..plan.read_heads], Rows { data: d_reads, at: &plan.read_at, stride: 1 });
    product::<F, A>(true, d_weightings, readers, stride, d_reads_by_head, m, Panels::rows(memory, 0, stride));

    scratch.row_factor.fill(F::ZERO);
    for head in 0..all {
        let range = head * stride..(head + 1) * stride;
        let (emitted, d) = (&mut heads[plan.head_at[head]..], &mut scratch.d_heads[plan.head_at[head]..]);
        let kept = Kept {
            similarity: &mut tape.similarity.row_mut(row)[range.clone()],
            content: &mut tape.content.row_mut(row)[range.clone()],
            shifted: &mut tape.shifted.row_mut(row)[range.clone()],
            weighting: &mut weightings[range.clone()],
        };
        let rings = BackwardScratch { gated: &mut scratch.gated, d_shifted: &mut scratch.d_shifted };
        let (norms, prev_w) = (tape.inverse_norm.row(row), &prev_weightings[range.clone()]);
        let (d_w, d_dots) = (&mut d_weightings[range.clone()], &mut scratch.d_dots[range]);
        let row_factor = &mut scratch.row_factor;
        address_backward::<F, A>(plan, emitted, norms, prev_w, kept, d_w, d_dots, row_factor, d, rings);
        // Eq. 6: d_k += sum_i d_(k . M_i) M_i
        dot_columns::<F, A>(true, &mut d[at.key()], d_dots, memory);
        scratch.factors[head * m..][..m].copy_from_slice(&emitted[at.key()]);
        activate_backward::<F, A>(plan, emitted, d, head >= plan.read_heads, mix);
    }
    // M_{t-1} from all sides, in one product and one pass
    // Eq. 6: d_M_i += sum_heads d_(k . M_i) k + row_factor(i) M_i
    // Eq. 2: d_M_i += sum_reads w(i) d_r
    let reads = plan.read_heads;
    scratch.d_dots[all * stride..].copy_from_slice(&weightings[..reads * stride]);
    scratch.factors[all * m..].copy_from_slice(d_reads);
    let factors = Rows { data: &scratch.factors, at: &plan.columns, stride: m };
    product::<F, A>(
        true,
        d_memory,
        &plan.memory_at,
        stride,
        factors,
        all + reads,
        Panels::rows(&scratch.d_dots, 0, stride),
    );
    add_scaled_rows::<F, A>(memory, &scratch.row_factor, d_memory);
}

/// All layers of the controller, backwards: from d_h in `d_shown`, and `d_z` of step t + 1, to `d_reads` and what of `d_z` the
/// layer below waits for.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn controller<F: Float, A: Arch>(
    plan: &Plan,
    weights: &Weights<F>,
    cuts: &[usize],
    layers: &mut [LayerTape<F>],
    d_z: &mut [Field<F>],
    tape: &mut Tape<F>,
    t: usize,
    active: &[usize],
    rows: &[usize],
) {
    let h = plan.h;
    for l in (0..plan.controller.len()).rev() {
        let (dense, layer) = (&plan.controller[l], &mut layers[l]);
        let (d_z, above) = d_z[l..].split_first_mut().expect("each layer has its d_z");
        for (&b, &row) in active.iter().zip(rows) {
            // h goes up, to the heads and the output or to the layer above, and on in time
            let from_above = match above.first() {
                Some(d_z) => &d_z.row(b)[..h],
                None => &tape.scratch.d_shown.row(b)[1..1 + h],
            };
            if plan.recurrent {
                let d_h = &mut d_z.row_mut(b)[plan.own(l)..][..h];
                axpy::<F, A>(d_h, F::ONE, from_above);
                let (prev_c, tanh_c) = (layer.cell.row(tape.row(b, t - 1)), layer.tanh_cell.row(row));
                lstm_backward(layer.gates.row_mut(row), prev_c, tanh_c, d_h, tape.scratch.d_cell[l].row_mut(b));
            } else {
                feedforward_backward(layer.gates.row_mut(row), from_above);
            }
        }
        let (packed, columns) = (&weights.controller[l], 0..cuts[l]);
        transposed::<F, A>(false, dense, packed, columns, &layer.gates, rows, d_z, active);
    }
    for &b in active {
        let d_reads = tape.scratch.d_reads.row_mut(b);
        d_reads.copy_from_slice(&d_z[0].row(b)[..d_reads.len()]);
    }
}
