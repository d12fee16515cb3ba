//! Eq. 8 on tensors.

use tch::Tensor;

/// Eq. 8: w~(i) = sum_k s_k w((i + k - S / 2) mod N): the paper's circular convolution, taps in the notebook's order.
///
/// Tap 0 moves the focus one row up (towards higher i) when S = 3, the middle tap keeps it, the last moves it down.
/// weighting (B, N), shift (B, S) with S odd -> (B, N). S may exceed N: the taps wrap round. Panics if B differs.
pub fn circular_convolution(weighting: &Tensor, shift: &Tensor) -> Tensor {
    let taps = shift.size2().expect("shift is (B, S)").1;
    // Row i of the k-th term is w((i + k - S/2) mod N): the weighting rolled by S/2 - k.
    let rolled: Vec<Tensor> = (0..taps).map(|k| weighting.roll([taps / 2 - k], [1])).collect();
    let rolled = Tensor::stack(&rolled, 1); // (B, S, N)
    shift.unsqueeze(1).matmul(&rolled).squeeze_dim(1) // (B, N)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// The notebook's indices: circulant(arange(N)).T[arange(-(S // 2), S // 2 + 1)][::-1], where circulant(c)[i][j] =
    /// c[(i - j) mod N], so its transpose has (j - i) mod N at [i][j]; a negative row index counts from the end.
    fn notebook_indices(rows: i64, taps: i64) -> Vec<Vec<i64>> {
        let half = taps / 2;
        (-half..=half).rev().map(|row| (0..rows).map(|j| (j - row).rem_euclid(rows)).collect()).collect()
    }

    // Eq. 8: w~(i) = sum_k s_k w^g((i + k - S / 2) mod N), against the notebook's way to compute it
    #[test]
    fn it_equals_the_circulant_gather_of_the_notebook() {
        for (rows, taps) in [(20, 3), (20, 5), (7, 1), (5, 5), (3, 3)] {
            let weighting = Tensor::rand([4, rows], (Kind::Double, Device::Cpu));
            let shift = Tensor::rand([4, taps], (Kind::Double, Device::Cpu));
            let indices: Vec<i64> = notebook_indices(rows, taps).concat();
            // (B, S, N), times the taps, summed over S
            let gathered = weighting.index_select(1, &Tensor::from_slice(&indices)).view([4, taps, rows]);
            let expected = (gathered * shift.unsqueeze(-1)).sum_dim_intlist(1, false, Kind::Double);
            let difference = (circular_convolution(&weighting, &shift) - expected).abs().max().double_value(&[]);
            assert!(difference < 1e-15, "N {rows}, S {taps}: {difference}");
        }
    }

    // Eq. 8: one turn
    #[test]
    fn a_one_hot_shift_moves_the_focus_by_one_row_and_wraps_round() {
        let focus = Tensor::from_slice(&[0.0, 0.0, 0.0, 1.0]).view([1, 4]);
        let moved = |taps: [f64; 3]| {
            let moved = circular_convolution(&focus, &Tensor::from_slice(&taps).view([1, 3]));
            Vec::<f64>::try_from(moved.view(-1)).unwrap()
        };
        assert_eq!(moved([1.0, 0.0, 0.0]), [1.0, 0.0, 0.0, 0.0]); // up, round the end
        assert_eq!(moved([0.0, 1.0, 0.0]), [0.0, 0.0, 0.0, 1.0]); // stay
        assert_eq!(moved([0.0, 0.0, 1.0]), [0.0, 0.0, 1.0, 0.0]); // down
    }

    #[test]
    fn more_taps_than_rows_wrap_round() {
        let weighting = Tensor::from_slice(&[0.25, 0.75]).view([1, 2]);
        let shift = Tensor::from_slice(&[0.1, 0.2, 0.3, 0.25, 0.15]).view([1, 5]);
        let shifted = Vec::<f64>::try_from(circular_convolution(&weighting, &shift).view(-1)).unwrap();
        // taps 0, 2, 4 (0.55) keep the row, taps 1, 3 (0.45) swap: 0.25 * 0.55 + 0.75 * 0.45
        assert!((shifted[0] - 0.475).abs() < 1e-12 && (shifted[1] - 0.525).abs() < 1e-12, "{shifted:?}");
    }
}
