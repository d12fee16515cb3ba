//! Eq. 6 on tensors.

use tch::{Kind, Tensor};

/// Added to both squared norms: a row of zeros is like nothing (similarity 0), and its gradient is finite.
pub const COSINE_EPSILON: f64 = 1e-6;

/// Eq. 6: K[k, M_i] = k . M_i / (|k| |M_i|), each norm as sqrt(sum of squares + epsilon).
///
/// key (B, M), memory (B, N, M) -> (B, N), in -1..1. Panics if the shapes don't fit.
pub fn cosine_similarity(key: &Tensor, memory: &Tensor) -> Tensor {
    let norm = |rows: &Tensor| (rows.square().sum_dim_intlist(-1, false, None::<Kind>) + COSINE_EPSILON).sqrt();
    let dot = memory.matmul(&key.unsqueeze(-1)).squeeze_dim(-1); // (B, N)
    dot / (norm(key).unsqueeze(-1) * norm(memory))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Eq. 6: K = (k . M_i) / (|k| |M_i|)
    #[test]
    fn similarity_is_the_cosine_of_the_angle() {
        let key = Tensor::from_slice(&[3.0, 4.0]).view([1, 2]);
        let memory = Tensor::from_slice(&[6.0, 8.0, -3.0, -4.0, 4.0, -3.0, 1.0, 0.0]).view([1, 4, 2]);
        let similarity = Vec::<f64>::try_from(cosine_similarity(&key, &memory).view(-1)).unwrap();
        // 50 / (5 * 10), -25 / (5 * 5), 0, 3 / (5 * 1)
        for (value, expected) in similarity.iter().zip([1.0, -1.0, 0.0, 0.6]) {
            assert!((value - expected).abs() < 1e-6, "{similarity:?}");
        }
    }

    #[test]
    fn a_zero_key_and_zero_rows_have_finite_values_and_gradients() {
        for kind in [Kind::Float, Kind::Double] {
            for (key, memory) in [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)] {
                let key = Tensor::full([2, 3], key, (kind, tch::Device::Cpu)).set_requires_grad(true);
                let memory = Tensor::full([2, 5, 3], memory, (kind, tch::Device::Cpu)).set_requires_grad(true);
                let similarity = cosine_similarity(&key, &memory);
                assert_eq!(similarity.size(), [2, 5]);
                assert_eq!(similarity.kind(), kind);
                similarity.sum(kind).backward();
                for tensor in [&similarity, &key.grad(), &memory.grad()] {
                    assert_eq!(i64::try_from(tensor.isfinite().all()).unwrap(), 1);
                    // at most 5 rows, each with slope |M_i| / |k| <= sqrt(3) / 1e-3
                    assert!(tensor.abs().max().double_value(&[]) <= 1e4, "{tensor:?}");
                }
            }
        }
    }
}
