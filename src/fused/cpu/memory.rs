//! Reading and writing the memory, stored (M, N) so that every loop runs over contiguous rows of N.

use super::vector::{dot, dot_columns};
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
    scratch: &mut [F],
) {
    let n = weighting.len();
    dot_columns::<F, A>(false, d_add, weighting, d_memory);
    for (m, (column, d_column)) in memory.chunks_exact(n).zip(d_memory.chunks_exact_mut(n)).enumerate() {
        write_column_backward::<F, A>(column, weighting, erase[m], add[m], d_column, d_weighting, scratch);
        d_erase[m] = -dot::<F, A>(column, scratch);
    }
}

/// One column of `write_backward`; `d_written` (N) receives w(i) d_M'_i.
#[inline(always)]
fn write_column_backward<F: Float, A: Arch>(
    column: &[F],
    weighting: &[F],
    e: F,
    a: F,
    d_column: &mut [F],
    d_weighting: &mut [F],
    d_written: &mut [F],
) {
    let n = column.len();
    let (weighting, d_column, d_weighting, d_written) =
        (&weighting[..n], &mut d_column[..n], &mut d_weighting[..n], &mut d_written[..n]);
    for i in 0..n {
        d_weighting[i] = A::fma(d_column[i], A::fma(-e, column[i], a), d_weighting[i]);
        d_written[i] = weighting[i] * d_column[i];
        d_column[i] = A::fma(-e, d_written[i], d_column[i]);
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
