//! The one matrix product of the engine: some rows of C, each the sum over i of a scalar of A times row i of B.
//! Weights times inputs, their transposes, the weight gradients and the content addressing are all of this form.
//!
//! Each element of C is one chain of multiply-adds in the order of i, however C is cut into blocks, so the
//! result does not depend on how many sequences or threads share the work.

use crate::simd::{self, Arch, Float, Work};

/// Columns of B that lie together: the width of a panel.
pub const PANEL: usize = 16;
/// Columns of C that lie in registers at a time, at most.
pub const BLOCK: usize = 4 * PANEL;

/// A matrix in a slice: row p starts at `at[p]`, its elements are `step` apart.
#[derive(Clone, Copy)]
pub struct Rows<'a, F> {
    pub data: &'a [F],
    pub at: &'a [usize],
    pub step: usize,
}

/// B, in panels of `PANEL` columns that start `panel` apart from `at` on; the rows of a panel are `step` apart.
#[derive(Clone, Copy)]
pub struct Panels<'a, F> {
    pub data: &'a [F],
    pub at: usize,
    pub step: usize,
    pub panel: usize,
}

impl<'a, F> Panels<'a, F> {
    /// A row-major matrix whose rows are `step` apart.
    pub fn rows(data: &'a [F], at: usize, step: usize) -> Panels<'a, F> {
        Panels { data, at, step, panel: PANEL }
    }

    /// A matrix of `rows` rows packed panel by panel, so that a product reads it from front to back.
    pub fn packed(data: &'a [F], rows: usize) -> Panels<'a, F> {
        Panels { data, at: 0, step: PANEL, panel: rows * PANEL }
    }

    /// Without the columns before `first`, a multiple of `PANEL` (or where the matrix ends, of which no column is left then).
    pub fn from(self, first: usize) -> Panels<'a, F> {
        Panels { at: self.at + first / PANEL * self.panel, ..self }
    }
}

/// C[p][0..width] = START C[p] + sum over i < inner of A[p][i] B[i][0..width].
///
/// C's row p starts at `c_at[p]`; START is 1 if `add`, else 0. Panics if a row reaches past its slice.
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
    assert_eq!(a.at.len(), c_at.len());
    assert!(c_at.iter().all(|at| at + width <= c.len()));
    if inner > 0 {
        assert!(a.at.iter().all(|at| at + (inner - 1) * a.step < a.data.len()));
        let last = width - 1; // the last element of the last row; the full panels before it end no later
        assert!(b.panel >= PANEL && b.at + last / PANEL * b.panel + (inner - 1) * b.step + last % PANEL < b.data.len());
        assert!(
            b.at + (last / PANEL).saturating_sub(1) * b.panel + (inner - 1) * b.step + last.min(PANEL - 1)
                < b.data.len()
        );
    }
    let job = Job {
        add,
        c: c.as_mut_ptr(),
        a: a.data.as_ptr(),
        step: a.step,
        inner,
        b: b.data[b.at.min(b.data.len())..].as_ptr(),
        b_step: b.step,
        panel: b.panel,
    };
    simd::run(A::LEVEL, Product { job, c_at, a_at: a.at, width }); // a call of its own, compiled once, not at each place
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
        let (fours, rest) = (c_at.len() / 4 * 4, c_at.len() % 4);
        // SAFETY: `product`, which alone makes these, has checked every row of A, B and C against its slice.
        unsafe {
            let (c_four, a_four) = (&c_at[..fours], &a_at[..fours]);
            let mut q = 0;
            if A::WIDE {
                q = job.panels::<A, 4, 64>(c_four, a_four, q, width);
                q = job.panels::<A, 4, 32>(c_four, a_four, q, width);
            }
            q = job.panels::<A, 4, 16>(c_four, a_four, q, width);
            job.narrow::<A, 4>(c_four, a_four, q, width);
            if rest >= 2 {
                let (c_two, a_two) = (&c_at[fours..fours + 2], &a_at[fours..fours + 2]);
                let q = job.panels::<A, 2, 32>(c_two, a_two, 0, width);
                let q = job.panels::<A, 2, 16>(c_two, a_two, q, width);
                job.narrow::<A, 2>(c_two, a_two, q, width);
            }
            if rest % 2 == 1 {
                let (c_one, a_one) = (&c_at[c_at.len() - 1..], &a_at[c_at.len() - 1..]);
                let q = job.panels::<A, 1, 64>(c_one, a_one, 0, width);
                let q = job.panels::<A, 1, 32>(c_one, a_one, q, width);
                let q = job.panels::<A, 1, 16>(c_one, a_one, q, width);
                job.narrow::<A, 1>(c_one, a_one, q, width);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Job<F> {
    add: bool,
    c: *mut F,
    a: *const F,
    step: usize,
    inner: usize,
    b: *const F,
    b_step: usize,
    panel: usize,
}

impl<F: Float> Job<F> {
    /// What is left of the width after the full panels, less than one.
    #[inline(always)]
    unsafe fn narrow<A: Arch, const P: usize>(&self, c_at: &[usize], a_at: &[usize], q: usize, width: usize) {
        // SAFETY: passed on to the caller.
        unsafe {
            let q = self.panels::<A, P, 8>(c_at, a_at, q, width);
            let q = self.panels::<A, P, 4>(c_at, a_at, q, width);
            self.panels::<A, P, 1>(c_at, a_at, q, width);
        }
    }

    /// Q columns at a time from column q on, while they fit, for all rows, P at a time; returns the column after the last.
    #[inline(always)]
    unsafe fn panels<A: Arch, const P: usize, const Q: usize>(
        &self,
        c_at: &[usize],
        a_at: &[usize],
        mut q: usize,
        width: usize,
    ) -> usize {
        while q + Q <= width {
            for (c_at, a_at) in c_at.chunks_exact(P).zip(a_at.chunks_exact(P)) {
                // SAFETY: passed on to the caller.
                unsafe { self.block::<A, P, Q>(c_at, a_at, q) };
            }
            q += Q;
        }
        q
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
            let mut b = self.b.wrapping_add(q / PANEL * self.panel + q % PANEL);
            for i in 0..self.inner {
                let mut row = [F::ZERO; Q];
                for (j, part) in row.chunks_mut(PANEL).enumerate() {
                    std::ptr::copy_nonoverlapping(b.add(j * self.panel), part.as_mut_ptr(), part.len());
                }
                for p in 0..P {
                    let scalar = *a[p].add(i * self.step);
                    for k in 0..Q {
                        sums[p][k] = A::fma(scalar, row[k], sums[p][k]);
                    }
                }
                b = b.wrapping_add(self.b_step);
            }
            for p in 0..P {
                *(self.c.add(c_at[p] + q) as *mut [F; Q]) = sums[p];
            }
        }
    }
}
