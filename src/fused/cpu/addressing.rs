//! Addressing (paper, section 3.3): from what a head emits to its weighting over the N rows, and back.

use super::plan::Plan;
use super::vector::{axpy, dot, softmax, softmax_backward};
use crate::model::{Activation, SHARPEN_EPSILON};
use crate::ops::COSINE_EPSILON;
use crate::simd::Arch;
use crate::simd::Float;

/// Where a head's values lie in what it emits: key (M), strength, gate, shift (S), sharpening, erase (M), add (M).
#[derive(Clone, Copy)]
pub struct Emitted {
    pub m: usize,
    pub s: usize,
}

impl Emitted {
    pub fn of(plan: &Plan) -> Emitted {
        Emitted { m: plan.m, s: plan.s }
    }
    pub fn key(self) -> std::ops::Range<usize> {
        0..self.m
    }
    pub fn strength(self) -> usize {
        self.m
    }
    pub fn gate(self) -> usize {
        self.m + 1
    }
    pub fn shift(self) -> std::ops::Range<usize> {
        self.m + 2..self.m + 2 + self.s
    }
    pub fn sharpening(self) -> usize {
        self.m + 2 + self.s
    }
    pub fn erase(self) -> std::ops::Range<usize> {
        self.m + 3 + self.s..2 * self.m + 3 + self.s
    }
    pub fn add(self) -> std::ops::Range<usize> {
        2 * self.m + 3 + self.s..3 * self.m + 3 + self.s
    }
}

/// Applies the activations to one head's values, in place.
#[inline(always)]
pub fn activate<F: Float, A: Arch>(plan: &Plan, head: &mut [F], writes: bool) {
    let at = Emitted::of(plan);
    if plan.key == Activation::Tanh {
        head[at.key()].iter_mut().for_each(|key| *key = key.tanh::<A>());
    }
    head[at.strength()] = head[at.strength()].softplus();
    head[at.gate()] = head[at.gate()].sigmoid::<A>();
    softmax::<F, A>(&mut head[at.shift()]);
    head[at.sharpening()] = F::ONE + head[at.sharpening()].softplus();
    if writes {
        head[at.erase()].iter_mut().for_each(|erase| *erase = erase.sigmoid::<A>());
        if plan.add == Activation::Tanh {
            head[at.add()].iter_mut().for_each(|add| *add = add.tanh::<A>());
        }
    }
}

/// From gradients `d` after the activations to those before them, which replace the head's values.
#[inline(always)]
pub fn activate_backward<F: Float, A: Arch>(plan: &Plan, head: &mut [F], d: &mut [F], writes: bool) {
    let at = Emitted::of(plan);
    let linear_or_tanh = |activation, head: &mut [F], d: &[F]| {
        for (value, d) in head.iter_mut().zip(d) {
            *value = if activation == Activation::Tanh { *d * (F::ONE - *value * *value) } else { *d };
        }
    };
    linear_or_tanh(plan.key, &mut head[at.key()], &d[at.key()]);
    // the slope of softplus is the sigmoid of its input, 1 - exp(-output)
    head[at.strength()] = d[at.strength()] * (F::ONE - (-head[at.strength()]).exp::<A>());
    head[at.gate()] = d[at.gate()] * head[at.gate()] * (F::ONE - head[at.gate()]);
    softmax_backward::<F, A>(&head[at.shift()], &mut d[at.shift()]);
    head[at.shift()].copy_from_slice(&d[at.shift()]);
    head[at.sharpening()] = d[at.sharpening()] * (F::ONE - (F::ONE - head[at.sharpening()]).exp::<A>());
    if writes {
        for (erase, d) in head[at.erase()].iter_mut().zip(&d[at.erase()]) {
            *erase = *d * *erase * (F::ONE - *erase);
        }
        linear_or_tanh(plan.add, &mut head[at.add()], &d[at.add()]);
    }
}

/// 1 / |M_i| of every row i, the norm as in `ops::cosine_similarity`. memory (M, N) -> (N)
#[inline(always)]
pub fn inverse_norms<F: Float, A: Arch>(memory: &[F], norms: &mut [F]) {
    norms.fill(F::of(COSINE_EPSILON));
    if norms.is_empty() {
        return;
    }
    for column in memory.chunks_exact(norms.len()) {
        for (norm, value) in norms.iter_mut().zip(column) {
            *norm = A::fma(*value, *value, *norm);
        }
    }
    for norm in norms.iter_mut() {
        *norm = F::ONE / norm.sqrt();
    }
}

/// 1 / |k|
#[inline(always)]
pub fn inverse_key_norm<F: Float, A: Arch>(key: &[F]) -> F {
    F::ONE / (dot::<F, A>(key, key) + F::of(COSINE_EPSILON)).sqrt()
}

/// What one head's addressing keeps for the backward pass, all (N).
pub struct Kept<'a, F> {
    /// On entry key . M_i, on return the cosine K of Eq. 6.
    pub similarity: &'a mut [F],
    pub content: &'a mut [F],
    pub shifted: &'a mut [F],
    pub weighting: &'a mut [F],
}

/// Eq. 5-9 for one head. `inverse_norm` and `prev_weighting` (N); `gated` is scratch.
#[inline(always)]
pub fn address<F: Float, A: Arch>(
    plan: &Plan,
    head: &[F],
    inverse_norm: &[F],
    prev_weighting: &[F],
    kept: Kept<F>,
    gated: &mut [F],
) {
    let at = Emitted::of(plan);
    let Kept { similarity, content, shifted, weighting } = kept;
    let (strength, gate, gamma) = (head[at.strength()], head[at.gate()], head[at.sharpening()]);
    // Eq. 6: K = k . M_i / (|k| |M_i|)
    let inverse_key = inverse_key_norm::<F, A>(&head[at.key()]);
    for (k, norm) in similarity.iter_mut().zip(inverse_norm) {
        *k = *k * (*norm * inverse_key);
    }
    // Eq. 5: w^c = softmax(strength K)
    for (c, k) in content.iter_mut().zip(similarity.iter()) {
        *c = strength * *k;
    }
    softmax::<F, A>(content);
    // Eq. 7: w^g = g w^c + (1 - g) prev_w
    interpolate::<F, A>(gate, content, prev_weighting, ring(gated, plan));
    close(gated, plan);
    // Eq. 8: w~(i) = sum_k s_k w^g((i + k - S / 2) mod N), plus the epsilon of Eq. 9
    shifted.fill(F::of(SHARPEN_EPSILON));
    for (k, tap) in head[at.shift()].iter().enumerate() {
        axpy::<F, A>(shifted, *tap, &gated[k..]);
    }
    // Eq. 9: w = softmax(gamma ln w~)
    for (w, shifted) in weighting.iter_mut().zip(shifted.iter()) {
        *w = gamma * shifted.ln::<A>();
    }
    softmax::<F, A>(weighting);
}

#[inline(always)]
fn interpolate<F: Float, A: Arch>(gate: F, content: &[F], prev_weighting: &[F], gated: &mut [F]) {
    for (gated, (content, prev)) in gated.iter_mut().zip(content.iter().zip(prev_weighting)) {
        *gated = A::fma(gate, *content - *prev, *prev);
    }
}

/// The N rows in the middle of a ring buffer (N + S - 1), which has S / 2 more at each end.
#[inline(always)]
fn ring<'a, F>(buffer: &'a mut [F], plan: &Plan) -> &'a mut [F] {
    &mut buffer[plan.s / 2..][..plan.n]
}

/// Repeats the rows of a ring buffer at its ends, so that row i + k of the buffer is row (i + k - S / 2) mod N.
#[inline(always)]
fn close<F: Float>(buffer: &mut [F], plan: &Plan) {
    let half = plan.s / 2;
    for k in 0..half {
        // rows -half + k and N + k, modulo N
        buffer[k] = buffer[half + (plan.n - 1 - (half - 1 - k) % plan.n)];
        buffer[half + plan.n + k] = buffer[half + k % plan.n];
    }
}

/// The scratch of `address_backward`, each a ring buffer (N + S - 1).
pub struct BackwardScratch<'a, F> {
    pub gated: &'a mut [F],
    pub d_shifted: &'a mut [F],
}

/// Eq. 9-5 backwards. On entry `d_w` (N) holds the gradient of the weighting. On return `d_w` holds that of
/// key . M_i, `d_prev` that of prev_weighting, `row_factor` has grown by what multiplies M_i in its own gradient, and
/// `d` holds the gradients of the head's values, except what the memory adds to the key's.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // the forward's values and the gradients
pub fn address_backward<F: Float, A: Arch>(
    plan: &Plan,
    head: &[F],
    inverse_norm: &[F],
    prev_weighting: &[F],
    kept: Kept<F>,
    d_w: &mut [F],
    d_prev: &mut [F],
    row_factor: &mut [F],
    d: &mut [F],
    scratch: BackwardScratch<F>,
) {
    let at = Emitted::of(plan);
    let Kept { similarity, content, shifted, weighting } = kept;
    let BackwardScratch { gated, d_shifted } = scratch;
    let (strength, gate, gamma) = (head[at.strength()], head[at.gate()], head[at.sharpening()]);
    // Eq. 9: w = softmax(u), u = gamma ln w~: d_u, then d_gamma = d_u . ln w~, d_w~ = d_u gamma / w~
    softmax_backward::<F, A>(weighting, d_w);
    let rows = ring(d_shifted, plan);
    for (logarithm, shifted) in rows.iter_mut().zip(shifted.iter()) {
        *logarithm = shifted.ln::<A>();
    }
    d[at.sharpening()] = dot::<F, A>(d_w, rows);
    for (d_shifted, (d_u, shifted)) in rows.iter_mut().zip(d_w.iter().zip(shifted.iter())) {
        *d_shifted = gamma * *d_u / *shifted;
    }
    // Eq. 8: d_s_k = sum_i d_w~(i) w^g(i + k - S/2), d_w^g(j) = sum_k s_k d_w~(j - k + S/2); d_w becomes d_w^g
    interpolate::<F, A>(gate, content, prev_weighting, ring(gated, plan));
    close(gated, plan);
    let rows = &d_shifted[at.s / 2..][..plan.n];
    for (k, d_tap) in d[at.shift()].iter_mut().enumerate() {
        *d_tap = dot::<F, A>(rows, &gated[k..]);
    }
    close(d_shifted, plan);
    d_w.fill(F::ZERO);
    for (k, tap) in head[at.shift()].iter().enumerate() {
        axpy::<F, A>(d_w, *tap, &d_shifted[at.s - 1 - k..]);
    }
    // Eq. 7: w^g = g w^c + (1 - g) prev_w: d_g = d_w^g . (w^c - prev_w), d_prev_w = (1 - g) d_w^g, d_w^c = g d_w^g
    d[at.gate()] = dot::<F, A>(d_w, content) - dot::<F, A>(d_w, prev_weighting);
    for (d_prev, d_gated) in d_prev.iter_mut().zip(d_w.iter()) {
        *d_prev = (F::ONE - gate) * *d_gated;
    }
    for d_gated in d_w.iter_mut() {
        *d_gated = gate * *d_gated;
    }
    // Eq. 5: w^c = softmax(v), v = strength K: d_v, then d_strength = d_v . K, d_K = strength d_v
    softmax_backward::<F, A>(content, d_w);
    let d_strength = dot::<F, A>(d_w, similarity);
    d[at.strength()] = d_strength;
    // Eq. 6: K = (k . M_i) / (|k| |M_i|): d_(k . M_i) = d_K / (|k| |M_i|); through |M_i|: -d_K K / |M_i|^2 M_i;
    // through |k|: -sum_i d_K K / |k|^2 k, and that sum is strength d_strength
    let key = &head[at.key()];
    let inverse_key = inverse_key_norm::<F, A>(key);
    let through_norm = strength * d_strength * inverse_key * inverse_key;
    for (d_key, key) in d[at.key()].iter_mut().zip(key) {
        *d_key = -(through_norm * *key);
    }
    let n = d_w.len();
    let (similarity, inverse_norm, row_factor) = (&similarity[..n], &inverse_norm[..n], &mut row_factor[..n]);
    for i in 0..n {
        let (d_k, norm) = (strength * d_w[i], inverse_norm[i]);
        row_factor[i] = A::fma(-(d_k * similarity[i]), norm * norm, row_factor[i]);
        d_w[i] = d_k * (inverse_key * norm);
    }
}
