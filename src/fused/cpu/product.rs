//! The one matrix product of the engine: some rows of C, each the sum over i of a scalar of A times row i of B.
//! Weights times inputs, their transposes, the weight gradients and the content addressing are all of this form.
//!
//! Each element of C is one chain of multiply-adds in the order of i, however C is cut into blocks, so the
//! result does not depend on how many sequences or threads share the work.

use crate::simd::{self, Arch, Float, LANES, Work};

/// A matrix in a slice: row p starts at `at[p]`, its elements are `stride` apart.
#[derive(Clone, Copy)]
pub struct Rows<'a, F> {
    pub data: &'a [F],
    pub at: &'a [usize],
    pub stride: usize,
}

/// B, in panels of `LANES` columns that start `panel` apart from `at` on; the rows of a panel are `stride` apart.
#[derive(Clone, Copy)]
pub struct Panels<'a, F> {
    pub data: &'a [F],
    pub at: usize,
    pub stride: usize,
    pub panel: usize,
}

impl<'a, F> Panels<'a, F> {
    /// A row-major matrix whose rows are `stride` apart.
    pub fn rows(data: &'a [F], at: usize, stride: usize) -> Panels<'a, F> {
        Panels { data, at, stride, panel: LANES }
    }

    /// A matrix of `rows` rows packed panel by panel, so that a product reads it from front to back.
    pub fn packed(data: &'a [F], rows: usize) -> Panels<'a, F> {
        Panels { data, at: 0, stride: LANES, panel: rows * LANES }
    }

    /// Without the columns before `first`, a multiple of `LANES`.
    pub fn from(self, first: usize) -> Panels<'a, F> {
        Panels { at: self.at + first / LANES * self.panel, ..self }
    }
}

/// C[p][0..width] = START C[p] + sum over i < inner of A[p][i] B[i][0..width].
///
/// C's row p starts at `c_at[p]`; START is 1 if `add`, else 0. `width` is a multiple of `LANES`. Panics if a row
/// reaches past its slice.
#[inline(always)]
pub fn product<F: Float, A: Arch>(
    add: bool,
    c: &mut [F],
    c_at: &[usize],
    width: usize,
    a: Rows<F>,
    inner: usize,
    b: Panels<F>,
) {
    if width == 0 || c_at.is_empty() || inner == 0 && add {
        return;
    }
    assert_eq!((a.at.len(), width % LANES), (c_at.len(), 0));
    assert!(c_at.iter().all(|at| at + width <= c.len()));
    if inner > 0 {
        assert!(a.at.iter().all(|at| at + (inner - 1) * a.stride < a.data.len()));
        assert!(b.at + (width / LANES - 1) * b.panel + (inner - 1) * b.stride + LANES <= b.data.len());
    }
    let job = Job {
        add,
        c: c.as_mut_ptr(),
        a: a.data.as_ptr(),
        stride: a.stride,
        inner,
        b: b.data[b.at.min(b.data.len())..].as_ptr(),
        b_stride: b.stride,
        panel: b.panel,
    };
    // a call, so that the blocks are compiled once and not wherever `product` is inlined
    simd::run(A::LEVEL, Product { job, c_at, a_at: a.at, width });
}

/// A product whose rows are known to lie in their slices.
struct Product<'a, F> {
    job: Job<F>,
    c_at: &'a [usize],
    a_at: &'a [usize],
    width: usize,
}

impl<F: Float> Work for Product<'_, F> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Product { job, c_at, a_at, width } = self;
        let (fours, twos) = (c_at.len() / 4 * 4, c_at.len() / 2 * 2);
        // SAFETY: `product`, which alone makes these, has checked every row of A, B and C against its slice.
        unsafe {
            job.rows::<A, 4>(&c_at[..fours], &a_at[..fours], width);
            job.rows::<A, 2>(&c_at[fours..twos], &a_at[fours..twos], width);
            job.rows::<A, 1>(&c_at[twos..], &a_at[twos..], width);
        }
    }
}

/// How many panels of C go at a time, at most, for so many rows: their sums stay in registers (but at `Plain`).
const fn most_panels<A: Arch>(rows: usize) -> usize {
    match (A::WIDE, rows) {
        (true, 4) => 4,
        (true, _) => 8,
        (false, 4) => 1,
        (false, 2) => 2,
        (false, _) => 4,
    }
}

#[derive(Clone, Copy)]
struct Job<F> {
    add: bool,
    c: *mut F,
    a: *const F,
    stride: usize,
    inner: usize,
    b: *const F,
    b_stride: usize,
    panel: usize,
}

impl<F: Float> Job<F> {
    /// P rows at a time, all columns of them: in as few blocks as may be, of one size as nearly as may be.
    #[inline(always)]
    unsafe fn rows<A: Arch, const P: usize>(&self, c_at: &[usize], a_at: &[usize], width: usize) {
        if c_at.is_empty() {
            return; // the divisions below would be for nothing
        }
        let most = most_panels::<A>(P);
        let (mut q, mut panels) = (0, width / LANES);
        // SAFETY: passed on to the caller.
        unsafe {
            while panels > 0 {
                let now = panels.div_ceil(panels.div_ceil(most));
                match now {
                    8 if most >= 8 => self.blocks::<A, P, { 8 * LANES }>(c_at, a_at, q),
                    7 if most >= 7 => self.blocks::<A, P, { 7 * LANES }>(c_at, a_at, q),
                    6 if most >= 6 => self.blocks::<A, P, { 6 * LANES }>(c_at, a_at, q),
                    5 if most >= 5 => self.blocks::<A, P, { 5 * LANES }>(c_at, a_at, q),
                    4 if most >= 4 => self.blocks::<A, P, { 4 * LANES }>(c_at, a_at, q),
                    3 if most >= 3 => self.blocks::<A, P, { 3 * LANES }>(c_at, a_at, q),
                    2 if most >= 2 => self.blocks::<A, P, { 2 * LANES }>(c_at, a_at, q),
                    1 => self.blocks::<A, P, LANES>(c_at, a_at, q),
                    _ => unreachable!("more panels than `most`"),
                }
                panels -= now;
                q += now * LANES;
            }
        }
    }

    /// Q columns from column q on, for all rows, P at a time.
    #[inline(always)]
    unsafe fn blocks<A: Arch, const P: usize, const Q: usize>(&self, c_at: &[usize], a_at: &[usize], q: usize) {
        for (c_at, a_at) in c_at.chunks_exact(P).zip(a_at.chunks_exact(P)) {
            // SAFETY: passed on to the caller.
            unsafe { self.block::<A, P, Q>(c_at, a_at, q) };
        }
    }

    /// P x Q elements of C, held in registers over all of `inner`.
    #[inline(always)]
    unsafe fn block<A: Arch, const P: usize, const Q: usize>(&self, c_at: &[usize], a_at: &[usize], q: usize) {
        // SAFETY: passed on to the caller.
        unsafe {
            let mut sums = [[F::ZERO; Q]; P];
            let mut a = [self.a; P];
            for p in 0..P {
                a[p] = self.a.wrapping_add(a_at[p]); // if inner is 0, it points nowhere
                if self.add {
                    sums[p] = *(self.c.add(c_at[p] + q) as *const [F; Q]);
                }
            }
            let mut b = self.b.wrapping_add(q / LANES * self.panel);
            for i in 0..self.inner {
                let mut row = [F::ZERO; Q];
                for (j, part) in row.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                    *part = *(b.add(j * self.panel) as *const [F; LANES]);
                }
                for p in 0..P {
                    let scalar = *a[p].add(i * self.stride);
                    for k in 0..Q {
                        sums[p][k] = A::fma(scalar, row[k], sums[p][k]);
                    }
                }
                b = b.wrapping_add(self.b_stride);
            }
            for p in 0..P {
                *(self.c.add(c_at[p] + q) as *mut [F; Q]) = sums[p];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Level;

    struct Call<'a> {
        add: bool,
        c: &'a mut [f64],
        c_at: &'a [usize],
        width: usize,
        a: Rows<'a, f64>,
        inner: usize,
        b: Panels<'a, f64>,
    }

    impl Work for Call<'_> {
        fn run<A: Arch>(self) {
            product::<f64, A>(self.add, self.c, self.c_at, self.width, self.a, self.inner, self.b);
        }
    }

    #[test]
    fn every_block_of_every_level_is_the_definition_and_writes_nothing_beside_it() {
        let value = |i: usize| (i * 7919 % 101) as f64 - 50.0; // whole, so that sums are exact
        let inner = 3;
        for (level, rows, panels) in Level::available()
            .into_iter()
            .flat_map(|level| (1..=7).flat_map(move |rows| (1..=17).map(move |panels| (level, rows, panels))))
        {
            for (first, packed, add) in [(0, true, true), (0, false, false), (1, true, false), (1, false, true)] {
                let (width, all) = (panels * LANES, (first + panels) * LANES);
                let data: Vec<f64> = (0..inner * all).map(value).collect();
                let whole = if packed { Panels::packed(&data, inner) } else { Panels::rows(&data, 0, all) };
                let b = |i: usize, q: usize| {
                    if packed { data[(q / LANES * inner + i) * LANES + q % LANES] } else { data[i * all + q] }
                };
                let a: Vec<f64> = (0..rows * inner).map(|i| value(i + 5)).collect();
                let a_at: Vec<usize> = (0..rows).map(|row| row * inner).collect();
                let c_at: Vec<usize> = (0..rows).map(|row| row * (width + 1)).collect(); // one between two rows
                let before: Vec<f64> = (0..rows * (width + 1)).map(|i| value(i + 9)).collect();
                let mut expected = before.clone();
                for (row, q) in (0..rows).flat_map(|row| (0..width).map(move |q| (row, q))) {
                    let sum: f64 = (0..inner).map(|i| a[row * inner + i] * b(i, first * LANES + q)).sum();
                    let start = if add { before[c_at[row] + q] } else { 0.0 };
                    expected[c_at[row] + q] = start + sum;
                }
                let mut c = before;
                let a = Rows { data: &a, at: &a_at, stride: 1 };
                let b = whole.from(first * LANES);
                simd::run(level, Call { add, c: &mut c, c_at: &c_at, width, a, inner, b });
                assert!(c == expected, "{level:?}, {rows} rows, {panels} panels from {first}, packed {packed}");
            }
        }
    }
}
