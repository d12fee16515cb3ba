//! The weights of a plan, packed for `product`, and the first state.

use super::product::Panels;
use super::vector::softmax;
use crate::fused::plan::{Dense, Plan};
use crate::model::CONSTANT_MEMORY;
use crate::simd::{Arch, Float, LANES};
use std::array;

impl Dense {
    /// Packs W from column `passed` on, (J, K - passed), and the transpose of W, (K, J), both in panels. LSTM's two
    /// biases add up.
    #[inline(always)]
    fn pack<F: Float>(&self, theta: &[F], weights: &mut Packed<F>) {
        let Packed { w, transposed } = weights;
        let step = self.input_stride.max(self.passed + self.passed_stride).next_multiple_of(4);
        let mut rows = vec![F::ZERO; LANES * step]; // of W, some at a time, which stay in the L1 cache
        w.resize(self.outputs * self.passed_stride, F::ZERO);
        transposed.resize(self.inputs * self.output_stride, F::ZERO);
        for (panel, to) in transposed.chunks_exact_mut(self.inputs * LANES).enumerate() {
            let first = panel * LANES;
            let count = LANES.min(self.outputs - first);
            rows.fill(F::ZERO);
            for piece in &self.pieces {
                for row in first.max(piece.row)..(first + count).min(piece.row + piece.rows) {
                    let from = &theta[piece.theta + (row - piece.row) * piece.columns..][..piece.columns];
                    let to = &mut rows[(row - first) * step + piece.column..][..piece.columns];
                    match piece.column {
                        0 => to[0] += from[0],
                        _ => to.copy_from_slice(from),
                    }
                }
            }
            // in arrays rather than slices, so that the compiler copies registers and calls no memmove
            for (row, values) in rows.chunks_exact(step).take(count).enumerate() {
                let passed = values[self.passed..][..self.passed_stride].as_chunks::<LANES>().0;
                for (panel, columns) in passed.iter().enumerate() {
                    w.as_chunks_mut::<LANES>().0[panel * self.outputs + first + row] = *columns;
                }
            }
            let tiles = rows.as_chunks::<4>().0; // (LANES, step / 4)
            for (i, to) in to.as_chunks_mut::<LANES>().0.chunks_mut(4).enumerate() {
                for j in 0..LANES / 4 {
                    let tile = F::columns(array::from_fn(|row| tiles[(4 * j + row) * (step / 4) + i]));
                    for (to, column) in to.iter_mut().zip(tile) {
                        to.as_chunks_mut().0[j] = column;
                    }
                }
            }
        }
    }

    /// Puts rows of the gradient of W (J, K) where they belong in theta's gradient.
    pub fn unpack<F: Float>(&self, d_w: &[F], gradient: &mut [F]) {
        for piece in &self.pieces {
            for row in 0..piece.rows {
                let from = &d_w[(piece.row + row) * self.input_stride + piece.column..][..piece.columns];
                gradient[piece.theta + row * piece.columns..][..piece.columns].copy_from_slice(from);
            }
        }
    }
}

/// The weights of a Dense, both ways round, as `Panels::packed` takes them.
#[derive(Default)]
pub struct Packed<F> {
    w: Vec<F>,
    transposed: Vec<F>,
}

impl<F> Packed<F> {
    /// Together with the sizes that they were packed by.
    #[inline(always)]
    pub fn of<'a>(&'a self, dense: &'a Dense) -> Matrix<'a, F> {
        Matrix { dense, packed: self }
    }
}

/// A Dense and its weights.
#[derive(Clone, Copy)]
pub struct Matrix<'a, F> {
    pub dense: &'a Dense,
    packed: &'a Packed<F>,
}

impl<'a, F> Matrix<'a, F> {
    /// W (J, K - passed)
    #[inline(always)]
    pub fn w(self) -> Panels<'a, F> {
        Panels::packed(&self.packed.w, self.dense.outputs)
    }

    /// Its transpose (K, J)
    #[inline(always)]
    pub fn transposed(self) -> Panels<'a, F> {
        Panels::packed(&self.packed.transposed, self.dense.inputs)
    }
}

/// What all sequences of an update share: packed weights and the first state.
#[derive(Default)]
pub struct Weights<F> {
    pub controller: Vec<Packed<F>>,
    pub heads: Packed<F>,
    pub output: Packed<F>,
    pub hidden: Vec<F>,    // (L, H)
    pub cell: Vec<F>,      // (L, H)
    pub read: Vec<F>,      // (R, M)
    pub memory: Vec<F>,    // (M, N'), N' the plan's n_stride
    pub weighting: Vec<F>, // (R + W, N')
    /// 0 for a row, the lowest number beyond N: added before a softmax, it keeps the padding out. (N')
    pub padding: Vec<F>,
}

impl Plan {
    /// Packs theta (layout.size()) for an update.
    #[inline(always)]
    pub fn pack<F: Float, A: Arch>(&self, theta: &[F], weights: &mut Weights<F>) {
        weights.controller.resize_with(self.controller.len(), Packed::default);
        for (dense, packed) in self.controller.iter().zip(&mut weights.controller) {
            dense.pack(theta, packed);
        }
        self.heads.pack(theta, &mut weights.heads);
        self.output.pack(theta, &mut weights.output);

        let copy = |at: Option<usize>, size: usize| at.map_or(vec![], |at| theta[at..at + size].to_vec());
        weights.hidden = copy(self.starts.hidden, self.controller.len() * self.h);
        weights.cell = copy(self.starts.cell, self.controller.len() * self.h);
        weights.read = copy(self.starts.read, self.read_heads * self.m);
        let (n, stride) = (self.n, self.n_stride);
        weights.padding = (0..stride).map(|i| if i < n { F::ZERO } else { F::LOWEST }).collect();
        weights.memory.clear();
        weights.memory.resize(self.m * stride, F::ZERO);
        for (column, values) in weights.memory.chunks_exact_mut(stride.max(1)).enumerate() {
            for (row, value) in values[..n].iter_mut().enumerate() {
                *value = self.starts.memory.map_or(F::of(CONSTANT_MEMORY), |(at, _)| theta[at + row * self.m + column]);
            }
        }
        weights.weighting.clear();
        weights.weighting.resize(self.all_heads() * stride, F::ZERO);
        for (head, w) in weights.weighting.chunks_exact_mut(stride.max(1)).enumerate() {
            match self.starts.weighting {
                Some(at) => {
                    w[..n].copy_from_slice(&theta[at + head * n..][..n]);
                    softmax::<F, A>(&mut w[..n]);
                }
                None if self.starts.one_hot => w[0] = F::ONE,
                None => w[..n].fill(F::of(1.0 / n as f64)),
            }
        }
    }
}
