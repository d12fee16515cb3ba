//! The backward pass of a micro-batch: the sections of `forward` in mirrored order. `derivation.md` derives each line.

use super::addressing::{HeadGradients, Rings, ShiftMix, activate_backward, address_backward};
use super::controller::{feedforward_backward, lstm_backward};
use super::crew::Crew;
use super::forward::Slice;
use super::memory::{Edit, EditGradients, add_scaled_rows, write, write_backward, write_into};
use super::product::{Panels, Rows, product};
use super::tape::{AddressingTape, Field, LayerTape, Scratch, Step, Tape};
use super::vector::{axpy, dot_columns};
use super::weights::{Matrix, Weights};
use crate::fused::plan::Plan;
use crate::simd::{self, Arch, Float, LANES, Work};
use crate::tasks::Loss;
use std::mem::take;
use std::ops::Range;

/// On entry the tape holds a forward pass. On return `logits`, `heads` and the layers' `gates` hold the gradients
/// before their activations, from which the weight gradients follow, and the scratch holds those of the first state.
/// `loss_weights` (T, B) are those of the whole batch.
///
/// While this thread works on the heads of step t, a second thread of the crew takes the gradients of step t + 1
/// through the recurrent weights. These are most of all weights, and nothing before the controller of step t needs the
/// result.
#[inline(always)]
pub fn backward<F: Float, A: Arch>(
    plan: &Plan,
    weights: &Weights<F>,
    crew: &mut Crew,
    slice: Slice,
    loss_weights: &[f32],
    tape: &mut Tape<F>,
) {
    tape.scratch.reset(plan, tape.lengths.len(), tape.segment);
    loss::<F, A>(plan, slice, loss_weights, tape);
    let mix = ShiftMix::new(slice.batch, plan.s);
    let beside = plan.recurrent && crew.threads() > 1;
    let cuts: Vec<usize> = (0..plan.controller.len()).map(|l| cut(plan, l, beside)).collect();
    let (mut layers, mut d_z) = (take(&mut tape.layers), take(&mut tape.scratch.d_z));
    let mut next = tape.step(tape.steps() + 1);
    for t in (1..=tape.steps()).rev() {
        let step = tape.step(t);
        let above = Above { plan, weights, slice, loss_weights, mix, tape, step: &step };
        if beside && !next.is_empty() {
            let of_next_step = || recurrent::<F, A>(plan, weights, &cuts, &layers, &mut d_z, &next);
            crew.join(of_next_step, || simd::run(A::LEVEL, above));
        } else {
            simd::run(A::LEVEL, above);
        }
        controller::<F, A>(plan, weights, &cuts, &mut layers, &mut d_z, tape, &step);
        next = step;
    }
    recurrent::<F, A>(plan, weights, &cuts, &layers, &mut d_z, &next);
    (tape.layers, tape.scratch.d_z) = (layers, d_z);
}

/// What a step has above its controller, backwards: the output, the heads and the memory. Leaves d_h in `d_shown`.
struct Above<'a, F: Float> {
    plan: &'a Plan,
    weights: &'a Weights<F>,
    slice: Slice<'a>,
    loss_weights: &'a [f32],
    mix: ShiftMix<F>,
    tape: &'a mut Tape<F>,
    step: &'a Step,
}

impl<F: Float> Work for Above<'_, F> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Above { plan, weights, slice, loss_weights, mix, tape, step } = self;
        let t = step.t;
        output::<F, A>(plan, weights, slice, loss_weights, tape, step);
        if plan.n > 0 {
            for &b in step.sequences() {
                if t == tape.lengths[b] || t.is_multiple_of(tape.segment) {
                    replay::<F, A>(plan, tape, b, t);
                }
                memory::<F, A>(plan, mix, tape, b, t);
            }
        }
        // heads = W [1, h]: d_h += W^T d_heads
        let (matrix, d_shown) = (weights.heads.of(&plan.heads), &mut tape.scratch.d_shown);
        let columns = 0..plan.heads.passed_stride;
        transposed::<F, A>(true, matrix, columns, &tape.heads, step.rows(), d_shown, step.sequences());
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
fn transposed<F: Float, A: Arch>(
    add: bool,
    matrix: Matrix<F>,
    columns: Range<usize>,
    d_out: &Field<F>,
    rows: &[usize],
    d_z: &mut Field<F>,
    sequences: &[usize],
) {
    let a_at = d_out.starts(rows);
    let c_at = d_z.starts(sequences).map(|at| at + columns.start);
    let a = Rows { data: &d_out.data, at: &a_at[..rows.len()], stride: 1 };
    let (c_at, w) = (&c_at[..sequences.len()], matrix.w().from(columns.start));
    product::<F, A>(add, &mut d_z.data, c_at, columns.len(), a, matrix.dense.outputs, w);
}

/// The first column of a layer's `d_z` that is left to the second thread: the recurrent weights, from the start of a
/// panel on. Without a second thread no column is left.
fn cut(plan: &Plan, l: usize, beside: bool) -> usize {
    if beside { plan.own(l).next_multiple_of(LANES) } else { plan.controller[l].passed_stride }
}

/// The columns of all layers' `d_z`, from `cuts` on, that the step before needs.
#[inline(always)]
fn recurrent<F: Float, A: Arch>(
    plan: &Plan,
    weights: &Weights<F>,
    cuts: &[usize],
    layers: &[LayerTape<F>],
    d_z: &mut [Field<F>],
    step: &Step,
) {
    for (l, (dense, layer)) in plan.controller.iter().zip(layers).enumerate() {
        let (matrix, columns) = (weights.controller[l].of(dense), cuts[l]..dense.passed_stride);
        transposed::<F, A>(false, matrix, columns, &layer.gates, step.rows(), &mut d_z[l], step.sequences());
    }
}

/// logits = W [1, h, r]: d_shown. Steps without a target pass nothing back.
#[inline(always)]
fn output<F: Float, A: Arch>(
    plan: &Plan,
    weights: &Weights<F>,
    slice: Slice,
    loss_weights: &[f32],
    tape: &mut Tape<F>,
    step: &Step,
) {
    let (sequences, d_shown) = (step.sequences(), &mut tape.scratch.d_shown);
    if sequences.iter().any(|&b| loss_weights[slice.row(b, step.t)] != 0.0) {
        let (matrix, columns) = (weights.output.of(&plan.output), 0..plan.output.passed_stride);
        transposed::<F, A>(false, matrix, columns, &tape.logits, step.logit_rows(), d_shown, sequences);
    } else {
        for &b in sequences {
            d_shown.row_mut(b).fill(F::ZERO);
        }
    }
}

/// Fills `replayed` with the memories M_first .. M_{t-1} of the segment that step t is the last of.
#[inline(always)]
fn replay<F: Float, A: Arch>(plan: &Plan, tape: &mut Tape<F>, b: usize, t: usize) {
    let segment = tape.segment;
    let index = (t - 1) / segment;
    let snapshot = tape.snapshot_row(b, index);
    tape.scratch.replayed.row_mut(b * segment).copy_from_slice(tape.snapshots.row(snapshot));
    for (place, step) in (index * segment + 1..t).enumerate() {
        let row = tape.row(b, step);
        let (before, after) = tape.scratch.replayed.pair(b * segment + place, b * segment + place + 1);
        for head in plan.read_heads..plan.all_heads() {
            let edit = Edit::of(plan, head, tape.heads.row(row), tape.addressing.weighting.row(row));
            match head - plan.read_heads {
                0 => write_into::<F, A>(before, edit, after),
                _ => write::<F, A>(after, edit),
            }
        }
    }
}

/// Where the values of one sequence in one step lie.
#[derive(Clone, Copy)]
struct Place {
    b: usize,
    /// Rows of the tape: of the step before, and of this one.
    prev: usize,
    row: usize,
    /// The row of M_{t-1} in `replayed`.
    found: usize,
}

/// All heads of one sequence in one step, backwards: writes, reads, addressing, then what they leave for M_{t-1}.
#[inline(always)]
fn memory<F: Float, A: Arch>(plan: &Plan, mix: ShiftMix<F>, tape: &mut Tape<F>, b: usize, t: usize) {
    let found = b * tape.segment + (t - 1) % tape.segment;
    let place = Place { b, prev: tape.row(b, t - 1), row: tape.row(b, t), found };
    let (heads, addressing, scratch) = (tape.heads.row_mut(place.row), &mut tape.addressing, &mut tape.scratch);
    writes::<F, A>(plan, heads, addressing.weighting.row(place.row), scratch, place);
    reads::<F, A>(plan, scratch, place);
    addresses::<F, A>(plan, mix, heads, addressing, scratch, place);
    gather::<F, A>(plan, addressing.weighting.row(place.row), scratch, place);
}

/// Eq. 3, 4: the writes of one sequence in one step, in reverse head order, each with the memory it found. On entry
/// `d_memory` holds the gradient of M_t, on return that of M_{t-1} as far as it goes through the writes.
#[inline(always)]
fn writes<F: Float, A: Arch>(plan: &Plan, heads: &[F], weightings: &[F], scratch: &mut Scratch<F>, place: Place) {
    let (at, first) = (plan.emitted, plan.read_heads);
    let memory = scratch.replayed.row(place.found);
    let d_memory = scratch.d_memory.row_mut(place.b);
    let d_weightings = scratch.d_weighting.row_mut(place.b);
    for writer in first..plan.all_heads() - 1 {
        let (number, edit) = (writer - first, Edit::of(plan, writer, heads, weightings));
        if number == 0 {
            write_into::<F, A>(memory, edit, scratch.between.row_mut(0));
        } else {
            let (before, after) = scratch.between.pair(number - 1, number);
            write_into::<F, A>(before, edit, after);
        }
    }
    for head in (first..plan.all_heads()).rev() {
        let found = if head == first { memory } else { scratch.between.row(head - first - 1) };
        let d_edit = &mut scratch.d_heads[plan.head_at[head]..][at.erase().start..at.add().end];
        let (d_erase, d_add) = d_edit.split_at_mut(plan.m);
        let gradients = EditGradients { d_weighting: &mut d_weightings[plan.weighting_of(head)], d_erase, d_add };
        write_backward::<F, A>(found, Edit::of(plan, head, heads, weightings), d_memory, gradients);
    }
}

/// Eq. 2: r = sum_i w(i) M_i: d_w(i) += d_r . M_i, for all read heads.
#[inline(always)]
fn reads<F: Float, A: Arch>(plan: &Plan, scratch: &mut Scratch<F>, place: Place) {
    let stride = plan.n_stride;
    // d_r comes from the controller's input at step t + 1, which has left it here, and from the output
    let d_reads = scratch.d_reads.row_mut(place.b);
    for (d_read, d_shown) in d_reads.iter_mut().zip(&scratch.d_shown.row(place.b)[1 + plan.h..]) {
        *d_read += *d_shown;
    }
    let (d_w, readers) = (scratch.d_weighting.row_mut(place.b), &plan.weighting_at[..plan.read_heads]);
    let d_reads = Rows { data: d_reads, at: &plan.read_at, stride: 1 };
    let memory = Panels::rows(scratch.replayed.row(place.found), 0, stride);
    product::<F, A>(true, d_w, readers, stride, d_reads, plan.m, memory);
}

/// Eq. 9-5 and the activations of all heads. Turns `heads` into the gradient before the activations. For `gather` it
/// leaves what it has for M_{t-1}: `d_dots`, the keys in `factors`, and `row_factor`.
#[inline(always)]
fn addresses<F: Float, A: Arch>(
    plan: &Plan,
    mix: ShiftMix<F>,
    heads: &mut [F],
    addressing: &mut AddressingTape<F>,
    scratch: &mut Scratch<F>,
    place: Place,
) {
    let (m, at) = (plan.m, plan.emitted);
    let memory = scratch.replayed.row(place.found);
    let d_weightings = scratch.d_weighting.row_mut(place.b);
    scratch.row_factor.fill(F::ZERO);
    for (head, &from) in plan.head_at.iter().enumerate() {
        let range = plan.weighting_of(head);
        let (emitted, d_emitted) = (&mut heads[from..], &mut scratch.d_heads[from..]);
        let d_dots = &mut scratch.d_dots[range.clone()];
        let gradients = HeadGradients {
            d_weighting: &mut d_weightings[range],
            d_dots,
            row_factor: &mut scratch.row_factor,
            d_emitted,
        };
        let rings = Rings { gated: &mut scratch.gated, d_shifted: &mut scratch.d_shifted };
        let vectors = addressing.head(plan, head, place.prev, place.row);
        address_backward::<F, A>(plan, emitted, vectors, gradients, rings);
        // Eq. 6: d_k += sum_i d_(k . M_i) M_i
        dot_columns::<F, A>(true, &mut d_emitted[at.key()], d_dots, memory);
        scratch.factors[head * m..][..m].copy_from_slice(&emitted[at.key()]);
        activate_backward::<F, A>(plan, emitted, d_emitted, head >= plan.read_heads, mix);
    }
}

/// What reads and addressing leave for M_{t-1}, from all heads in one product and one pass:
/// Eq. 6: d_M_i += sum_heads d_(k . M_i) k + row_factor(i) M_i
/// Eq. 2: d_M_i += sum_reads w(i) d_r
#[inline(always)]
fn gather<F: Float, A: Arch>(plan: &Plan, weightings: &[F], scratch: &mut Scratch<F>, place: Place) {
    let (stride, m, all, reads) = (plan.n_stride, plan.m, plan.all_heads(), plan.read_heads);
    scratch.d_dots[all * stride..].copy_from_slice(&weightings[..reads * stride]);
    scratch.factors[all * m..].copy_from_slice(scratch.d_reads.row(place.b));
    let d_memory = scratch.d_memory.row_mut(place.b);
    let (factors, rows) =
        (Rows { data: &scratch.factors, at: &plan.columns, stride: m }, Panels::rows(&scratch.d_dots, 0, stride));
    product::<F, A>(true, d_memory, &plan.memory_at, stride, factors, all + reads, rows);
    add_scaled_rows::<F, A>(scratch.replayed.row(place.found), &scratch.row_factor, d_memory);
}

/// All layers of the controller, backwards: from d_h in `d_shown` and `d_z` of step t + 1 to `d_reads` and the columns
/// of `d_z` up to `cuts`.
#[inline(always)]
fn controller<F: Float, A: Arch>(
    plan: &Plan,
    weights: &Weights<F>,
    cuts: &[usize],
    layers: &mut [LayerTape<F>],
    d_z: &mut [Field<F>],
    tape: &mut Tape<F>,
    step: &Step,
) {
    let h = plan.h;
    for l in (0..plan.controller.len()).rev() {
        let layer = &mut layers[l];
        let (d_z, above) = d_z[l..].split_first_mut().expect("each layer has its d_z");
        for (b, row) in step.sequences_and_rows() {
            // h went up, to the layer above or to heads and output, and on to step t + 1
            let from_above = match above.first() {
                Some(d_z) => &d_z.row(b)[..h],
                None => &tape.scratch.d_shown.row(b)[1..1 + h],
            };
            if plan.recurrent {
                let d_h = &mut d_z.row_mut(b)[plan.own(l)..][..h];
                axpy::<F, A>(d_h, F::ONE, from_above);
                let (prev_c, tanh_c) = (layer.cell.row(tape.row(b, step.t - 1)), layer.tanh_cell.row(row));
                lstm_backward(layer.gates.row_mut(row), prev_c, tanh_c, d_h, tape.scratch.d_cell[l].row_mut(b));
            } else {
                feedforward_backward(layer.gates.row_mut(row), from_above);
            }
        }
        let (matrix, columns) = (weights.controller[l].of(&plan.controller[l]), 0..cuts[l]);
        transposed::<F, A>(false, matrix, columns, &layer.gates, step.rows(), d_z, step.sequences());
    }
    for &b in step.sequences() {
        let d_reads = tape.scratch.d_reads.row_mut(b);
        d_reads.copy_from_slice(&d_z[0].row(b)[..d_reads.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{forward, slopes::assert_slopes, slopes::values};
    use super::*;
    use crate::config::Recipe;
    use crate::model::Spec;
    use crate::simd::Plain;
    use crate::tasks::Batch;

    /// Of vectors over the rows, from N values to the stride of a tape and back.
    fn pad(plan: &Plan, from: &[f64], to: &mut [f64]) {
        for (from, to) in from.chunks_exact(plan.n).zip(to.chunks_exact_mut(plan.n_stride)) {
            to[..plan.n].copy_from_slice(from);
        }
    }

    fn unpadded(plan: &Plan, from: &[f64]) -> Vec<f64> {
        from.chunks_exact(plan.n_stride).flat_map(|vector| &vector[..plan.n]).copied().collect()
    }

    /// The tape after the only step of a sequence. x: what the heads emit, before the activations, the previous
    /// weightings, and the memory
    fn stepped(plan: &Plan, mix: ShiftMix<f64>, x: &[f64]) -> Tape<f64> {
        let mut tape = Tape::default();
        tape.reset(plan, &[1], true);
        let (emitted, x) = x.split_at(plan.heads.outputs);
        let (prev_weightings, memory) = x.split_at(plan.all_heads() * plan.n);
        let (start, row) = (tape.row(0, 0), tape.row(0, 1));
        tape.heads.row_mut(row)[..emitted.len()].copy_from_slice(emitted);
        pad(plan, prev_weightings, tape.addressing.weighting.row_mut(start));
        pad(plan, memory, tape.memory.row_mut(0));
        tape.snapshots.row_mut(0).copy_from_slice(tape.memory.row(0));
        let padding: Vec<f64> = (0..plan.n_stride).map(|i| if i < plan.n { 0.0 } else { f64::LOWEST }).collect();
        forward::memory::<f64, Plain>(plan, &padding, mix, &mut tape, 0, 1);
        tape
    }

    #[test]
    fn memory_backward_is_the_slope_of_memory() {
        let model = r#"{"memory": {"rows": 9, "width": 5}, "read_heads": 2, "write_heads": 2}"#;
        let recipe = Recipe::parse(&format!(r#"{{"model": {model}}}"#), &[]).unwrap();
        let plan = Plan::new(Spec::new(&recipe.model, 3, 3));
        let (all, cells, reads) = (plan.all_heads() * plan.n, plan.m * plan.n, 1 + plan.h..1 + plan.h + 2 * plan.m);
        let mix = ShiftMix::new(&Batch { blur: 0.25, ..Batch::default() }, plan.s);
        let mut x = values(plan.heads.outputs + all + cells, 5);
        x[plan.heads.outputs..][..all].iter_mut().for_each(|weight| *weight = 0.1 + weight.abs());
        let forward = |x: &[f64]| {
            let tape = stepped(&plan, mix, x);
            let weightings = unpadded(&plan, tape.addressing.weighting.row(tape.row(0, 1)));
            [&tape.shown.row(tape.row(0, 1))[reads.clone()], &weightings, &unpadded(&plan, tape.memory.row(0))].concat()
        };

        let d_out = values(2 * plan.m + all + cells, 6);
        let mut tape = stepped(&plan, mix, &x);
        tape.scratch.reset(&plan, 1, tape.segment);
        tape.scratch.d_shown.row_mut(0)[reads.clone()].copy_from_slice(&d_out[..2 * plan.m]);
        pad(&plan, &d_out[2 * plan.m..][..all], tape.scratch.d_weighting.row_mut(0));
        pad(&plan, &d_out[2 * plan.m + all..], tape.scratch.d_memory.row_mut(0));
        replay::<f64, Plain>(&plan, &mut tape, 0, 1);
        memory::<f64, Plain>(&plan, mix, &mut tape, 0, 1);

        let d_emitted = &tape.heads.row(tape.row(0, 1))[..plan.heads.outputs];
        let d_prev_weightings = unpadded(&plan, tape.scratch.d_weighting.row(0));
        let d_memory = unpadded(&plan, tape.scratch.d_memory.row(0));
        let emitted = ["key", "strength", "gate", "shift", "sharpening", "erase", "add"];
        let sizes = [plan.m, 1, 1, plan.s, 1, plan.m, plan.m];
        let [read, write] = ["read", "write"].map(|kind| emitted.map(|part| format!("{kind} {part}")));
        let [read, write] =
            [&read[..5], &write].map(|names| names.iter().map(String::as_str).zip(sizes).collect::<Vec<_>>());
        let rest = [("prev_weighting", all), ("memory", cells)];
        let parts = [&read[..], &read, &write, &write, &rest].concat();
        assert_slopes(&parts, &x, &d_out, forward, &[d_emitted, &d_prev_weightings, &d_memory].concat());
    }
}
