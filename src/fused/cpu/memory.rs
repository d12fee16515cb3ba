//! Reading and writing the memory, stored (M, N) so that every loop runs over contiguous rows of N.

use super::vector::{Lanes, dot_columns, lanes, lanes_mut};
use crate::simd::Arch;
use crate::simd::Float;

/// Eq. 2: r = sum_i w(i) M_i. memory (M, N), weighting (N) -> read (M)
#[inline(always)]
pub fn read<F: Float, A: Arch>(memory: &[F], weighting: &[F], read: &mut [F]) {
    dot_columns::<F, A>(false, read, weighting, memory);
}

/// Eq. 3, 4: M_i <- M_i (1 - w(i) e) + w(i) a, as M_i + w(i) (a - e M_i). memory (M, N) in place
#[inline(always)]
pub fn write<F: Float, A: Arch>(memory: &mut [F], weighting: &[F], erase: &[F], add: &[F]) {
    for (column, (e, a)) in memory.chunks_exact_mut(weighting.len()).zip(erase.iter().zip(add)) {
        for (value, w) in column.iter_mut().zip(weighting) {
            *value = A::fma(*w, A::fma(-*e, *value, *a), *value);
        }
    }
}

/// `write`, from one memory into another.
#[inline(always)]
pub fn write_into<F: Float, A: Arch>(memory: &[F], weighting: &[F], erase: &[F], add: &[F], written: &mut [F]) {
    let n = weighting.len();
    let columns = memory.chunks_exact(n).zip(written.chunks_exact_mut(n));
    for ((column, written), (e, a)) in columns.zip(erase.iter().zip(add)) {
        for ((written, value), w) in written.iter_mut().zip(column).zip(weighting) {
            *written = A::fma(*w, A::fma(-*e, *value, *a), *value);
        }
    }
}

/// Eq. 3, 4 backwards: `memory` is what the head found. d_memory turns from the gradient after the write into the one
/// before it: d_M_i = d_M'_i (1 - w(i) e). d_w(i) += d_M'_i . (a - e M_i), d_e = -sum_i w(i) d_M'_i M_i, d_a = sum_i w(i) d_M'_i
#[inline(always)]
#[allow(clippy::too_many_arguments)] // the forward's values and the gradients
pub fn write_backward<F: Float, A: Arch>(
    memory: &[F],
    weighting: &[F],
    erase: &[F],
    add: &[F],
    d_memory: &mut [F],
    d_weighting: &mut [F],
    d_erase: &mut [F],
    d_add: &mut [F],
) {
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
