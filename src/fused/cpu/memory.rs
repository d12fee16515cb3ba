//! Reading and writing the memory, stored (M, N) so that every loop runs over contiguous rows of N.

use super::vector::{Lanes, dot_columns, lanes, lanes_mut};
use crate::fused::plan::Plan;
use crate::simd::{Arch, Float};

/// Eq. 2: r = sum_i w(i) M_i. memory (M, N), weighting (N) -> read (M)
#[inline(always)]
pub fn read<F: Float, A: Arch>(memory: &[F], weighting: &[F], read: &mut [F]) {
    dot_columns::<F, A>(false, read, weighting, memory);
}

/// What a write head does to the rows it points at.
#[derive(Clone, Copy)]
pub struct Edit<'a, F> {
    pub weighting: &'a [F], // w (N)
    pub erase: &'a [F],     // e (M)
    pub add: &'a [F],       // a (M)
}

impl<'a, F> Edit<'a, F> {
    /// Of one head, from rows of a tape: what all heads emit, and their weightings.
    #[inline(always)]
    pub fn of(plan: &Plan, head: usize, emitted: &'a [F], weightings: &'a [F]) -> Edit<'a, F> {
        let (emitted, at) = (&emitted[plan.head_at[head]..], plan.emitted);
        Edit { weighting: &weightings[plan.weighting_of(head)], erase: &emitted[at.erase()], add: &emitted[at.add()] }
    }
}

/// Eq. 3, 4: M_i <- M_i (1 - w(i) e) + w(i) a, as M_i + w(i) (a - e M_i). memory (M, N) in place
#[inline(always)]
pub fn write<F: Float, A: Arch>(memory: &mut [F], edit: Edit<F>) {
    let Edit { weighting, erase, add } = edit;
    for (column, (e, a)) in memory.chunks_exact_mut(weighting.len()).zip(erase.iter().zip(add)) {
        for (value, w) in column.iter_mut().zip(weighting) {
            *value = A::fma(*w, A::fma(-*e, *value, *a), *value);
        }
    }
}

/// `write`, from one memory into another.
#[inline(always)]
pub fn write_into<F: Float, A: Arch>(memory: &[F], edit: Edit<F>, written: &mut [F]) {
    let Edit { weighting, erase, add } = edit;
    let n = weighting.len();
    let columns = memory.chunks_exact(n).zip(written.chunks_exact_mut(n));
    for ((column, written), (e, a)) in columns.zip(erase.iter().zip(add)) {
        for ((written, value), w) in written.iter_mut().zip(column).zip(weighting) {
            *written = A::fma(*w, A::fma(-*e, *value, *a), *value);
        }
    }
}

/// The gradients of an `Edit`: those of the weighting grow, the others are overwritten.
pub struct EditGradients<'a, F> {
    pub d_weighting: &'a mut [F], // (N)
    pub d_erase: &'a mut [F],     // (M)
    pub d_add: &'a mut [F],       // (M)
}

/// Eq. 3, 4 backwards: `memory` is what the head found. d_memory turns from the gradient after the write into the one
/// before it: d_M_i = d_M'_i (1 - w(i) e).
///
///     d_w(i) += d_M'_i . (a - e M_i)   d_e = -sum_i w(i) d_M'_i M_i   d_a = sum_i w(i) d_M'_i
#[inline(always)]
pub fn write_backward<F: Float, A: Arch>(memory: &[F], edit: Edit<F>, d_memory: &mut [F], gradients: EditGradients<F>) {
    let Edit { weighting, erase, add } = edit;
    let EditGradients { d_weighting, d_erase, d_add } = gradients;
    let n = weighting.len();
    let (mut columns, mut d_columns) = (memory.chunks_exact(2 * n), d_memory.chunks_exact_mut(2 * n));
    let mut m = 0;
    for (pair, d_pair) in columns.by_ref().zip(d_columns.by_ref()) {
        let (edits, d_edits) = ([(erase[m], add[m]), (erase[m + 1], add[m + 1])], &mut [(F::ZERO, F::ZERO); 2]);
        let (first, second) = d_pair.split_at_mut(n);
        columns_backward::<F, A, 2>(weighting, [&pair[..n], &pair[n..]], edits, [first, second], d_weighting, d_edits);
        [(d_erase[m], d_add[m]), (d_erase[m + 1], d_add[m + 1])] = *d_edits;
        m += 2;
    }
    if !columns.remainder().is_empty() {
        let (column, d_edits) = (columns.remainder(), &mut [(F::ZERO, F::ZERO)]);
        let edits = [(erase[m], add[m])];
        columns_backward::<F, A, 1>(weighting, [column], edits, [d_columns.into_remainder()], d_weighting, d_edits);
        [(d_erase[m], d_add[m])] = *d_edits;
    }
}

/// C columns of `write_backward`, whose (e, a) are `edits`, in one pass.
#[inline(always)]
fn columns_backward<F: Float, A: Arch, const C: usize>(
    weighting: &[F],
    columns: [&[F]; C],
    edits: [(F, F); C],
    d_columns: [&mut [F]; C],
    d_weighting: &mut [F],
    d_edits: &mut [(F, F); C],
) {
    let (mut d_erase, mut d_add) = ([Lanes::all(F::ZERO); C], [Lanes::all(F::ZERO); C]);
    let edits = edits.map(|(e, a)| (Lanes::all(-e), Lanes::all(a)));
    let columns = columns.map(|column| column.as_chunks().0);
    let d_columns = d_columns.map(|column| column.as_chunks_mut().0);
    for (p, (w, d_w)) in lanes(weighting).zip(lanes_mut(d_weighting)).enumerate() {
        let mut d_w_sum = Lanes(*d_w);
        for c in 0..C {
            let (value, d_value, (minus_e, a)) = (Lanes(columns[c][p]), Lanes(d_columns[c][p]), edits[c]);
            d_w_sum = d_value.fma::<A>(minus_e.fma::<A>(value, a), d_w_sum);
            let d_written = w * d_value;
            d_add[c] = d_add[c] + d_written;
            d_erase[c] = d_written.fma::<A>(value, d_erase[c]);
            d_columns[c][p] = minus_e.fma::<A>(d_written, d_value).0;
        }
        *d_w = d_w_sum.0;
    }
    for c in 0..C {
        d_edits[c] = (-d_erase[c].sum(), d_add[c].sum());
    }
}

/// d_M_i += row_factor(i) M_i. memory (M, N), row_factor (N)
#[inline(always)]
pub fn add_scaled_rows<F: Float, A: Arch>(memory: &[F], row_factor: &[F], d_memory: &mut [F]) {
    let n = row_factor.len();
    for (column, d_column) in memory.chunks_exact(n).zip(d_memory.chunks_exact_mut(n)) {
        for (d, (factor, value)) in d_column.iter_mut().zip(row_factor.iter().zip(column)) {
            *d = A::fma(*factor, *value, *d);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::slopes::{assert_slopes, values};
    use super::*;
    use crate::simd::{LANES, Plain};

    #[test]
    fn write_backward_is_the_slope_of_write() {
        const N: usize = 2 * LANES;
        const M: usize = 3; // columns go in pairs, and one is left over
        // x: w, e, a, M
        let split = |x: &[f64]| {
            let ([weighting, erase, add, memory], x) =
                ([0..N, N..N + M, N + M..N + 2 * M, N + 2 * M..x.len()], x.to_vec());
            [&x[weighting], &x[erase], &x[add], &x[memory]].map(<[f64]>::to_vec)
        };
        let forward = |x: &[f64]| {
            let [weighting, erase, add, mut memory] = split(x);
            write::<f64, Plain>(&mut memory, Edit { weighting: &weighting, erase: &erase, add: &add });
            memory
        };
        let (x, d_out) = (values(N + 2 * M + M * N, 1), values(M * N, 2));
        let [weighting, erase, add, memory] = split(&x);
        let (mut d_memory, mut d_weighting, mut d_erase, mut d_add) =
            (d_out.clone(), vec![1.0; N], vec![0.0; M], vec![0.0; M]);
        let gradients = EditGradients { d_weighting: &mut d_weighting, d_erase: &mut d_erase, d_add: &mut d_add };
        let edit = Edit { weighting: &weighting, erase: &erase, add: &add };
        write_backward::<f64, Plain>(&memory, edit, &mut d_memory, gradients);
        d_weighting.iter_mut().for_each(|d| *d -= 1.0); // it grows
        let parts = [("d_weighting", N), ("d_erase", M), ("d_add", M), ("d_memory", M * N)];
        assert_slopes(&parts, &x, &d_out, forward, &[d_weighting, d_erase, d_add, d_memory].concat());
    }
}
