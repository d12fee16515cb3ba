//! Loops over vectors. Vectors over the memory's rows are padded to a multiple of `LANES` (`Plan::n_stride`), so that
//! their loops, the hot ones, know no remainder. Reductions keep `LANES` partial results and combine them in a fixed
//! order: vectorised, and the same on every run.

use crate::simd::{Arch, Float, LANES};
use std::ops::{Add, Mul};

/// `LANES` neighbours of a vector. Each operation is a loop of its own, small enough for the compiler to unroll it and
/// to keep the lanes in registers. In one loop around several operations it keeps them in memory.
#[derive(Clone, Copy)]
pub struct Lanes<F>(pub [F; LANES]);

/// A padded vector, `LANES` at a time.
#[inline(always)]
pub fn lanes<F: Float>(vector: &[F]) -> impl Iterator<Item = Lanes<F>> {
    vector.as_chunks().0.iter().map(|lanes| Lanes(*lanes))
}

/// A padded vector to change, `LANES` at a time.
#[inline(always)]
pub fn lanes_mut<F>(vector: &mut [F]) -> impl Iterator<Item = &mut [F; LANES]> {
    vector.as_chunks_mut().0.iter_mut()
}

impl<F: Float> Lanes<F> {
    #[inline(always)]
    pub fn all(value: F) -> Lanes<F> {
        Lanes([value; LANES])
    }

    #[inline(always)]
    fn with(self, other: Lanes<F>, each: impl Fn(F, F) -> F) -> Lanes<F> {
        let mut out = self;
        for i in 0..LANES {
            out.0[i] = each(self.0[i], other.0[i]);
        }
        out
    }

    /// self * factor + term
    #[inline(always)]
    pub fn fma<A: Arch>(self, factor: Lanes<F>, term: Lanes<F>) -> Lanes<F> {
        let mut out = self;
        for i in 0..LANES {
            out.0[i] = A::fma(self.0[i], factor.0[i], term.0[i]);
        }
        out
    }

    #[inline(always)]
    pub fn larger(self, other: Lanes<F>) -> Lanes<F> {
        self.with(other, F::larger)
    }

    /// Combines the lanes in a fixed order.
    #[inline(always)]
    fn fold(mut self, combine: impl Fn(F, F) -> F) -> F {
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                self.0[i] = combine(self.0[i], self.0[i + half]);
            }
            half /= 2;
        }
        self.0[0]
    }

    #[inline(always)]
    pub fn sum(self) -> F {
        self.fold(|x, y| x + y)
    }

    #[inline(always)]
    pub fn largest(self) -> F {
        self.fold(F::larger)
    }
}

impl<F: Float> Add for Lanes<F> {
    type Output = Lanes<F>;
    #[inline(always)]
    fn add(self, other: Lanes<F>) -> Lanes<F> {
        self.with(other, |x, y| x + y)
    }
}

impl<F: Float> Mul for Lanes<F> {
    type Output = Lanes<F>;
    #[inline(always)]
    fn mul(self, other: Lanes<F>) -> Lanes<F> {
        self.with(other, |x, y| x * y)
    }
}

/// sum over i of a[i] b[i]; the slices have one length, any
#[inline(always)]
pub fn dot<F: Float, A: Arch>(a: &[F], b: &[F]) -> F {
    let [sum] = dots::<F, A, 1>(a, [b]);
    sum
}

/// The dot products of one vector with C others, which share its loads. Panics if one of them is shorter.
#[inline(always)]
pub fn dots<F: Float, A: Arch, const C: usize>(a: &[F], columns: [&[F]; C]) -> [F; C] {
    assert!(columns.iter().all(|column| column.len() >= a.len()));
    let mut sums = [Lanes::all(F::ZERO); C];
    let whole = a.len() / LANES * LANES;
    let mut at = 0;
    while at < whole {
        // SAFETY: at + LANES <= whole <= the length of all of them. (A checked access would make the compiler keep the
        // lanes in memory.)
        unsafe {
            let part = Lanes(*(a.as_ptr().add(at) as *const [F; LANES]));
            for c in 0..C {
                let column = Lanes(*(columns[c].as_ptr().add(at) as *const [F; LANES]));
                sums[c] = part.fma::<A>(column, sums[c]);
            }
        }
        at += LANES;
    }
    if whole < a.len() {
        for c in 0..C {
            rest(&mut sums[c], &a[whole..], &columns[c][whole..]);
        }
    }
    let mut out = [F::ZERO; C]; // no `map`: it may stay a call, outside the reach of the wide instructions
    for c in 0..C {
        out[c] = sums[c].sum();
    }
    out
}

/// The last elements, fewer than LANES, kept out of the way of the loop above.
#[cold]
#[inline(never)]
fn rest<F: Float>(sums: &mut Lanes<F>, a: &[F], b: &[F]) {
    for (lane, (a, b)) in sums.0.iter_mut().zip(a.iter().zip(b)) {
        *lane = *a * *b + *lane;
    }
}

/// out[m] = START out[m] + a . column m, for columns (M, N) and a (N); START is 1 if `add`, else 0
#[inline(always)]
pub fn dot_columns<F: Float, A: Arch>(add: bool, out: &mut [F], a: &[F], columns: &[F]) {
    let n = a.len();
    let start = |value: F| if add { value } else { F::ZERO };
    let mut fours = out.chunks_exact_mut(4);
    let mut columns = columns.chunks_exact(n);
    let mut next = || columns.next().expect("as many columns as outputs");
    for out in &mut fours {
        let sums = dots::<F, A, 4>(a, [next(), next(), next(), next()]);
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = start(*out) + sum;
        }
    }
    for out in fours.into_remainder() {
        *out = start(*out) + dot::<F, A>(a, next());
    }
}

/// y += scale x
#[inline(always)]
pub fn axpy<F: Float, A: Arch>(y: &mut [F], scale: F, x: &[F]) {
    let n = y.len();
    let x = &x[..n];
    for i in 0..n {
        y[i] = A::fma(scale, x[i], y[i]);
    }
}

/// A softmax in place over the first n values of a padded vector, whose padding is very low on entry and zero on
/// return.
#[inline(always)]
pub fn padded_softmax<F: Float, A: Arch>(values: &mut [F], n: usize) {
    let mut highest = Lanes::all(F::LOWEST);
    for values in lanes(values) {
        highest = highest.larger(values);
    }
    let highest = highest.largest();
    for value in values.iter_mut() {
        *value = (*value - highest).exp::<A>();
    }
    let mut sum = Lanes::all(F::ZERO);
    for values in lanes(values) {
        sum = sum + values;
    }
    let scale = F::ONE / sum.sum();
    for value in values.iter_mut() {
        *value = *value * scale;
    }
    values[n..].fill(F::ZERO);
}

/// A softmax in place, of any length.
#[inline(always)]
pub fn softmax<F: Float, A: Arch>(values: &mut [F]) {
    let highest = values.iter().fold(F::LOWEST, |highest, value| highest.larger(*value));
    let mut sum = F::ZERO;
    for value in values.iter_mut() {
        *value = (*value - highest).exp::<A>();
        sum += *value;
    }
    let scale = F::ONE / sum;
    values.iter_mut().for_each(|value| *value = *value * scale);
}

/// d <- the gradient before a softmax whose output is y, from the gradient d after it: y (d - d . y)
#[inline(always)]
pub fn softmax_backward<F: Float, A: Arch>(y: &[F], d: &mut [F]) {
    let mean = dot::<F, A>(y, d);
    for (d, y) in d.iter_mut().zip(y) {
        *d = *y * (*d - mean);
    }
}
