//! Sums and maxima of slices. Sixteen partial sums, combined in a fixed order: vectorised, and the same on every run.

use crate::simd::Arch;
use crate::simd::Float;

const LANES: usize = 16;

/// Folds the lanes of a reduction in a fixed order.
#[inline(always)]
fn fold<F: Float>(mut lanes: [F; LANES], combine: impl Fn(F, F) -> F) -> F {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = combine(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// sum over i of a[i] b[i]; the slices have one length
#[inline(always)]
pub fn dot<F: Float, A: Arch>(a: &[F], b: &[F]) -> F {
    let [sum] = dots::<F, A, 1>(a, [b]);
    sum
}

/// The dot products of one vector with C others, which share its loads. Panics if one of them is shorter.
#[inline(always)]
fn dots<F: Float, A: Arch, const C: usize>(a: &[F], columns: [&[F]; C]) -> [F; C] {
    assert!(columns.iter().all(|column| column.len() >= a.len()));
    let mut lanes = [[F::ZERO; LANES]; C];
    let whole = a.len() / LANES * LANES;
    let mut at = 0;
    while at < whole {
        // SAFETY: at + LANES <= whole <= the length of all of them. (Raw, because checks here keep the lanes in memory.)
        unsafe {
            let part = *(a.as_ptr().add(at) as *const [F; LANES]);
            for c in 0..C {
                let column = *(columns[c].as_ptr().add(at) as *const [F; LANES]);
                for i in 0..LANES {
                    lanes[c][i] = A::fma(part[i], column[i], lanes[c][i]);
                }
            }
        }
        at += LANES;
    }
    if whole < a.len() {
        for c in 0..C {
            rest(&mut lanes[c], &a[whole..], &columns[c][whole..]);
        }
    }
    lanes.map(|lanes| fold(lanes, |x, y| x + y))
}

/// The last elements, fewer than LANES, kept out of the way of the loop above.
#[cold]
#[inline(never)]
fn rest<F: Float>(lanes: &mut [F; LANES], a: &[F], b: &[F]) {
    for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
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

#[inline(always)]
pub fn sum<F: Float>(a: &[F]) -> F {
    let mut lanes = [F::ZERO; LANES];
    let chunks = a.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += chunk[i];
        }
    }
    for (i, value) in rest.iter().enumerate() {
        lanes[i] += *value;
    }
    fold(lanes, |x, y| x + y)
}

#[inline(always)]
pub fn max<F: Float>(a: &[F]) -> F {
    let mut lanes = [F::LOWEST; LANES];
    let chunks = a.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = lanes[i].larger(chunk[i]);
        }
    }
    for (i, value) in rest.iter().enumerate() {
        lanes[i] = lanes[i].larger(*value);
    }
    fold(lanes, F::larger)
}

/// y += scale x
#[inline(always)]
pub fn axpy<F: Float, A: Arch>(y: &mut [F], scale: F, x: &[F]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = A::fma(scale, *x, *y);
    }
}

/// values <- exp(values - max) / sum: a softmax in place
#[inline(always)]
pub fn softmax<F: Float, A: Arch>(values: &mut [F]) {
    let highest = max(values);
    for value in values.iter_mut() {
        *value = (*value - highest).exp::<A>();
    }
    let scale = F::ONE / sum(values);
    for value in values.iter_mut() {
        *value = *value * scale;
    }
}

/// d <- the gradient before a softmax whose output is y, from the gradient d after it: y (d - d . y)
#[inline(always)]
pub fn softmax_backward<F: Float, A: Arch>(y: &[F], d: &mut [F]) {
    let n = d.len();
    let y = &y[..n];
    let mean = dot::<F, A>(y, d);
    for i in 0..n {
        d[i] = y[i] * (d[i] - mean);
    }
}
