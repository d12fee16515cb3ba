//! The gradients of the parameters, from the rows that the backward pass has left in the tapes.

use super::Fused;
use super::product::{Panels, Rows, product};
use super::tape::{Field, Tape};
use super::vector::softmax_backward;
use crate::fused::plan::{Dense, Plan};
use crate::simd::{self, Arch, Float, Work};

/// Rows of a weight gradient that one task sums, and rows of the tape that it takes at a time. Both fit the L2 cache.
const GRADIENT_ROWS: usize = 32;
const SUMMED_ROWS: usize = 128;
/// Multiply-adds that are worth a thread, some 20 microseconds of them.
const WORTH_SHARING: usize = 1 << 20;

/// The matrices of a plan in the order of `Fused::d_w`.
fn denses(plan: &Plan) -> impl Iterator<Item = &Dense> {
    plan.controller.iter().chain([&plan.heads, &plan.output])
}

impl<F: Float> Fused<F> {
    /// Fills the rest of theta's gradient once all tapes have been added; what is not learned keeps 0.
    pub(super) fn finish_gradients(&self, gradient: &mut [F]) {
        let plan = &self.plan;
        for (dense, d_w) in denses(plan).zip(&self.d_w) {
            dense.unpack(d_w, gradient);
        }
        if let Some(at) = plan.starts.weighting {
            let d = &mut gradient[at..at + plan.all_heads() * plan.n];
            for (y, d) in self.weights.weighting.chunks_exact(plan.n_stride).zip(d.chunks_exact_mut(plan.n)) {
                softmax_backward::<F, simd::Plain>(&y[..plan.n], d); // w_0 = softmax(..)
            }
        }
    }

    /// d_W = sum over the tapes' sequences and steps of d_out z^T, for every Dense, added to `d_w` if `add`, else in its
    /// place. Uses at most `threads` threads, whose tasks share no element.
    pub(super) fn weight_gradients(&mut self, add: bool, threads: usize) {
        self.d_w.resize_with(denses(&self.plan).count(), Vec::new);
        let mut tasks = vec![];
        for (index, (dense, d_w)) in denses(&self.plan).zip(&mut self.d_w).enumerate() {
            d_w.resize(dense.outputs * dense.input_stride, F::ZERO);
            let blocks = d_w.chunks_mut(GRADIENT_ROWS * dense.input_stride).enumerate();
            tasks.extend(blocks.map(|(block, rows)| (index, dense, block * GRADIENT_ROWS, rows)));
        }
        let (tapes, level, layers) = (&self.tapes, self.level, self.plan.controller.len());
        let values: usize = denses(&self.plan).map(|dense| dense.outputs * dense.input_stride).sum();
        let steps: usize = tapes.iter().flat_map(|tape| &tape.lengths).sum();
        let sum = |(index, dense, first_row, d_w)| {
            simd::run(level, WeightGradient { layers, index, dense, first_row, tapes, add, d_w })
        };
        self.crew.each(threads.min(1 + values * steps / WORTH_SHARING), tasks.into_iter(), sum);
    }

    /// Adds to theta's gradient those of the first state: sums over the tapes' sequences, in their order.
    pub(super) fn start_gradients(&self, gradient: &mut [F]) {
        let (plan, starts) = (&self.plan, &self.plan.starts);
        let mut add = |at: usize, values: &[F]| {
            gradient[at..at + values.len()].iter_mut().zip(values).for_each(|(d, value)| *d += *value)
        };
        for tape in &self.tapes {
            let scratch = &tape.scratch;
            for b in 0..tape.lengths.len() {
                if let Some(at) = starts.hidden {
                    for (l, d_z) in scratch.d_z.iter().enumerate() {
                        add(at + l * plan.h, &d_z.row(b)[plan.own(l)..][..plan.h]);
                    }
                }
                if let Some(at) = starts.cell {
                    scratch.d_cell.iter().enumerate().for_each(|(l, field)| add(at + l * plan.h, field.row(b)));
                }
                if let Some(at) = starts.read {
                    add(at, scratch.d_reads.row(b));
                }
                if let Some(at) = starts.weighting {
                    for (head, d_w) in scratch.d_weighting.row(b).chunks_exact(plan.n_stride).enumerate() {
                        add(at + head * plan.n, &d_w[..plan.n]);
                    }
                }
                if let Some((at, true)) = starts.memory {
                    let d_memory = scratch.d_memory.row(b); // (M, N), in theta (N, M)
                    for (m, column) in d_memory.chunks_exact(plan.n_stride).enumerate() {
                        (0..plan.n).for_each(|i| add(at + i * plan.m + m, &column[i..=i]));
                    }
                }
            }
        }
    }
}

/// Rows `first_row..` of one Dense's gradient.
struct WeightGradient<'a, F: Float> {
    layers: usize,
    index: usize,
    dense: &'a Dense,
    first_row: usize,
    tapes: &'a [Tape<F>],
    /// Whether to add to what `d_w` holds; else it is replaced.
    add: bool,
    d_w: &'a mut [F],
}

impl<F: Float> Work for WeightGradient<'_, F> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let WeightGradient { layers, index, dense, first_row, tapes, mut add, d_w } = self;
        let rows = d_w.len() / dense.input_stride;
        let c_at: [usize; GRADIENT_ROWS] = std::array::from_fn(|row| row * dense.input_stride);
        for tape in tapes {
            for b in 0..tape.lengths.len() {
                let (first, is_output) = (tape.row(b, 1), index == layers + 1);
                let (d_out, z): (&Field<F>, &Field<F>) = match index {
                    layer if layer < layers => (&tape.layers[layer].gates, &tape.layers[layer].z),
                    _ if is_output => (&tape.logits, &tape.shown),
                    _ => (&tape.heads, &tape.shown),
                };
                let first_out = if is_output { tape.logit_row(b, 1) } else { first };
                for from in (0..tape.lengths[b]).step_by(SUMMED_ROWS) {
                    let steps = SUMMED_ROWS.min(tape.lengths[b] - from);
                    let a_at: [usize; GRADIENT_ROWS] =
                        std::array::from_fn(|row| (first_out + from) * d_out.stride + first_row + row);
                    let a = Rows { data: &d_out.data, at: &a_at[..rows], stride: d_out.stride };
                    product::<F, A>(
                        add,
                        d_w,
                        &c_at[..rows],
                        dense.input_stride,
                        a,
                        steps,
                        Panels::rows(&z.data, (first + from) * z.stride, z.stride),
                    );
                    add = true;
                }
            }
        }
    }
}
