//! Reading and writing the memory (paper, sections 3.1 and 3.2).

use tch::Tensor;

/// What a write head does to the rows it points at.
pub struct Edit {
    pub erase: Tensor, // (B, M), 0 to 1
    pub add: Tensor,   // (B, M)
}

/// Eq. 2: r = sum_i w(i) M_i. memory (B, N, M), weighting (B, N) -> (B, M)
pub fn read(memory: &Tensor, weighting: &Tensor) -> Tensor {
    weighting.unsqueeze(1).matmul(memory).squeeze_dim(1)
}

/// Eq. 3, 4: M_i <- M_i (1 - w(i) e) + w(i) a. memory (B, N, M), weighting (B, N) -> (B, N, M)
pub fn write(memory: &Tensor, weighting: &Tensor, edit: &Edit) -> Tensor {
    let weighting = weighting.unsqueeze(2); // (B, N, 1)
    let keep = 1.0 - &weighting * edit.erase.unsqueeze(1); // (B, N, M)
    memory * keep + weighting * edit.add.unsqueeze(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Eq. 2: r = M_i, and Eq. 3, 4: M_i = a, where w is one-hot and e is 1
    #[test]
    fn a_focused_full_erase_replaces_one_row_and_a_read_returns_it() {
        let memory = Tensor::from_slice(&[1.0, 2.0, 3.0, 4.0]).view([1, 2, 2]);
        let focus = Tensor::from_slice(&[0.0, 1.0]).view([1, 2]);
        let edit = Edit {
            erase: Tensor::from_slice(&[1.0, 1.0]).view([1, 2]),
            add: Tensor::from_slice(&[5.0, 6.0]).view([1, 2]),
        };
        let written = write(&memory, &focus, &edit);
        assert_eq!(Vec::<f64>::try_from(written.view(-1)).unwrap(), [1.0, 2.0, 5.0, 6.0]);
        assert_eq!(Vec::<f64>::try_from(read(&written, &focus).view(-1)).unwrap(), [5.0, 6.0]);
    }

    // Eq. 3, 4: M_i (1 - w e) + w a
    #[test]
    fn half_a_weight_erases_and_adds_half() {
        let memory = Tensor::from_slice(&[8.0]).view([1, 1, 1]);
        let edit =
            Edit { erase: Tensor::from_slice(&[0.5]).view([1, 1]), add: Tensor::from_slice(&[2.0]).view([1, 1]) };
        let written = write(&memory, &Tensor::from_slice(&[0.5]).view([1, 1]), &edit);
        assert_eq!(written.double_value(&[0, 0, 0]), 7.0); // 8 * (1 - 0.5 * 0.5) + 0.5 * 2
    }
}
