//! Addressing (paper, section 3.3): from what a head emits to its weighting over the N rows, and back.

use super::vector::{LANES, Lanes, axpy, dot, dots, lanes_mut, padded_softmax, softmax, softmax_backward};
use crate::fused::plan::Plan;
use crate::model::{Activation, Emitted, SHARPEN_EPSILON};
use crate::ops::COSINE_EPSILON;
use crate::simd::Arch;
use crate::simd::Float;

/// Applies the activations to one head's values, in place. `mix`: see `Batch::mix`.
#[inline(always)]
pub fn activate<F: Float, A: Arch>(plan: &Plan, head: &mut [F], writes: bool, [kept, mixed]: [F; 2]) {
    let at = plan.emitted;
    if plan.key == Activation::Tanh {
        head[at.key()].iter_mut().for_each(|key| *key = key.tanh::<A>());
    }
    head[at.strength()] = head[at.strength()].softplus();
    head[at.gate()] = head[at.gate()].sigmoid::<A>();
    softmax::<F, A>(&mut head[at.shift()]);
    head[at.shift()].iter_mut().for_each(|shift| *shift = *shift * kept + mixed);
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
pub fn activate_backward<F: Float, A: Arch>(
    plan: &Plan,
    head: &mut [F],
    d: &mut [F],
    writes: bool,
    [kept, mixed]: [F; 2],
) {
    let at = plan.emitted;
    let linear_or_tanh = |activation, head: &mut [F], d: &[F]| {
        for (value, d) in head.iter_mut().zip(d) {
            *value = if activation == Activation::Tanh { *d * (F::ONE - *value * *value) } else { *d };
        }
    };
    linear_or_tanh(plan.key, &mut head[at.key()], &d[at.key()]);
    // the slope of softplus is the sigmoid of its input, 1 - exp(-output)
    head[at.strength()] = d[at.strength()] * (F::ONE - (-head[at.strength()]).exp::<A>());
    head[at.gate()] = d[at.gate()] * head[at.gate()] * (F::ONE - head[at.gate()]);
    // back through kept softmax + mixed
    for (shift, d) in head[at.shift()].iter_mut().zip(&mut d[at.shift()]) {
        (*shift, *d) = ((*shift - mixed) / kept, *d * kept);
    }
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
    let step = norms.len() / LANES;
    let (memory, epsilon) = (memory.as_chunks().0, Lanes::all(F::of(COSINE_EPSILON)));
    for (p, norm) in lanes_mut(norms).enumerate() {
        let mut squares = epsilon;
        let mut at = p;
        while at < memory.len() {
            squares = Lanes(memory[at]).fma::<A>(Lanes(memory[at]), squares);
            at += step;
        }
        *norm = squares.0;
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

/// Eq. 5-9 for one head. `inverse_norm`, `prev_weighting` and `padding` (N); `gated` is scratch, a ring buffer.
#[inline(always)]
pub fn address<F: Float, A: Arch>(
    plan: &Plan,
    head: &[F],
    inverse_norm: &[F],
    prev_weighting: &[F],
    kept: Kept<F>,
    padding: &[F],
    gated: &mut [F],
) {
    let at = plan.emitted;
    let Kept { similarity, content, shifted, weighting } = kept;
    scores::<F, A>(head, at, inverse_norm, padding, similarity, content);
    // Eq. 5: w^c = softmax(v)
    padded_softmax::<F, A>(content, plan.n);
    interpolate::<F, A>(head[at.gate()], content, prev_weighting, rows_of(gated, plan));
    close(gated, plan);
    // Eq. 8: w~(i) = sum_k s_k w^g((i + k - S / 2) mod N), plus the epsilon of Eq. 9
    convolve::<F, A>(F::of(SHARPEN_EPSILON), head[at.shift()].iter(), gated, shifted);
    // Eq. 9: w = softmax(gamma ln w~)
    let gamma = head[at.sharpening()];
    for ((w, shifted), padding) in weighting.iter_mut().zip(shifted.iter()).zip(padding) {
        *w = A::fma(gamma, shifted.ln::<A>(), *padding);
    }
    padded_softmax::<F, A>(weighting, plan.n);
}

/// Eq. 6: K = k . M_i / (|k| |M_i|), in place of k . M_i; and the v of Eq. 5, strength K.
#[inline(always)]
fn scores<F: Float, A: Arch>(
    head: &[F],
    at: Emitted,
    inverse_norm: &[F],
    padding: &[F],
    similarity: &mut [F],
    content: &mut [F],
) {
    let (strength, inverse_key) = (head[at.strength()], inverse_key_norm::<F, A>(&head[at.key()]));
    for (k, norm) in similarity.iter_mut().zip(inverse_norm) {
        *k = *k * (*norm * inverse_key);
    }
    for (content, (k, padding)) in content.iter_mut().zip(similarity.iter().zip(padding)) {
        *content = A::fma(strength, *k, *padding);
    }
}

/// Eq. 7: w^g = g w^c + (1 - g) prev_w
#[inline(always)]
fn interpolate<F: Float, A: Arch>(gate: F, content: &[F], prev_weighting: &[F], gated: &mut [F]) {
    for (gated, (content, prev)) in gated.iter_mut().zip(content.iter().zip(prev_weighting)) {
        *gated = A::fma(gate, *content - *prev, *prev);
    }
}

/// out(i) = start + sum_k taps_k ring(i + k)
#[inline(always)]
fn convolve<'a, F: Float, A: Arch>(start: F, taps: impl Iterator<Item = &'a F>, ring: &[F], out: &mut [F]) {
    out.fill(start);
    for (k, &tap) in taps.enumerate() {
        axpy::<F, A>(out, tap, &ring[k..]);
    }
}

/// The rows in the middle of a ring buffer, which has S / 2 more at each end.
#[inline(always)]
fn rows_of<'a, F>(ring: &'a mut [F], plan: &Plan) -> &'a mut [F] {
    &mut ring[plan.s / 2..][..plan.n_stride]
}

/// Repeats the rows of a ring buffer at its ends, so that row i + k of the buffer is row (i + k - S / 2) mod N.
#[inline(always)]
fn close<F: Float>(ring: &mut [F], plan: &Plan) {
    let half = plan.s / 2;
    for k in 0..half {
        // rows -half + k and N + k, modulo N
        ring[k] = ring[half + (plan.n - 1 - (half - 1 - k) % plan.n)];
        ring[half + plan.n + k] = ring[half + k % plan.n];
    }
}

/// The scratch of `address_backward`, two ring buffers.
pub struct BackwardScratch<'a, F> {
    pub gated: &'a mut [F],
    pub d_shifted: &'a mut [F],
}

/// Eq. 9-5 backwards. On entry `d_weighting` (N) holds the gradient of the weighting, on return that of the previous one.
/// `d_dots` (N) receives that of key . M_i, `row_factor` (N) grows by what multiplies M_i in its own gradient, and `d`
/// holds the gradients of the head's values, except what the memory adds to the key's.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // the forward's values and the gradients
pub fn address_backward<F: Float, A: Arch>(
    plan: &Plan,
    head: &[F],
    inverse_norm: &[F],
    prev_weighting: &[F],
    kept: Kept<F>,
    d_weighting: &mut [F],
    d_dots: &mut [F],
    row_factor: &mut [F],
    d: &mut [F],
    scratch: BackwardScratch<F>,
) {
    let at = plan.emitted;
    let Kept { similarity, content, shifted, weighting } = kept;
    let BackwardScratch { gated, d_shifted } = scratch;
    let gate = head[at.gate()];
    let rows = rows_of(d_shifted, plan);
    d[at.sharpening()] = sharpen_backward::<F, A>(head[at.sharpening()], weighting, shifted, d_weighting, rows);
    // Eq. 8: d_s_k = sum_i d_w~(i) w^g(i + k - S/2), d_w^g(j) = sum_k s_k d_w~(j - k + S/2)
    interpolate::<F, A>(gate, content, prev_weighting, rows_of(gated, plan));
    close(gated, plan);
    for (k, d_tap) in d[at.shift()].iter_mut().enumerate() {
        *d_tap = dot::<F, A>(rows, &gated[k..]);
    }
    close(d_shifted, plan);
    let d_gated = d_dots; // in its place until `content_backward` turns it into the gradient of key . M_i
    // the same sum as forward with the shift reversed: S is odd, so j - k + S/2 = j + (S - 1 - k) - S/2
    convolve::<F, A>(F::ZERO, head[at.shift()].iter().rev(), d_shifted, d_gated);
    // Eq. 7: w^g = g w^c + (1 - g) prev_w: d_prev_w = (1 - g) d_w^g, d_g = d_w^g . (w^c - prev_w), d_w^c = g d_w^g
    for (d_prev, d_gated) in d_weighting.iter_mut().zip(d_gated.iter()) {
        *d_prev = (F::ONE - gate) * *d_gated;
    }
    let [by_content, by_prev] = dots::<F, A, 2>(d_gated, [content, prev_weighting]);
    d[at.gate()] = by_content - by_prev;
    content_backward::<F, A>(head, at, similarity, content, inverse_norm, gate * by_content, d_gated, row_factor, d);
}

/// Eq. 9: d_u = w (d_w - d_w . w) by the softmax rule, then d_gamma = d_u . ln w~ (returned), d_w~ = d_u gamma / w~.
#[inline(always)]
fn sharpen_backward<F: Float, A: Arch>(
    gamma: F,
    weighting: &[F],
    shifted: &[F],
    d_u: &mut [F],
    d_shifted: &mut [F],
) -> F {
    let (n, mean) = (d_u.len(), dot::<F, A>(weighting, d_u));
    let (weighting, shifted, d_shifted) = (&weighting[..n], &shifted[..n], &mut d_shifted[..n]);
    for i in 0..n {
        d_u[i] = weighting[i] * (d_u[i] - mean);
        d_shifted[i] = shifted[i].ln::<A>(); // for the moment
    }
    let d_gamma = dot::<F, A>(d_u, d_shifted);
    for i in 0..n {
        d_shifted[i] = gamma * d_u[i] / shifted[i];
    }
    d_gamma
}

/// Eq. 5: w^c = softmax(v), v = strength K: d_v = w^c (g d_w^g - mean), d_strength = d_v . K, d_K = strength d_v.
/// Eq. 6: K = (k . M_i) / (|k| |M_i|): d_(k . M_i) = d_K / (|k| |M_i|), in place of d_w^g; through |M_i|: -d_K K / |M_i|^2 M_i;
/// through |k|: -sum_i d_K K / |k|^2 k, and that sum is strength d_strength.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn content_backward<F: Float, A: Arch>(
    head: &[F],
    at: Emitted,
    similarity: &[F],
    content: &[F],
    inverse_norm: &[F],
    mean: F,
    d_dots: &mut [F],
    row_factor: &mut [F],
    d: &mut [F],
) {
    let key = &head[at.key()];
    let (strength, gate, inverse_key) = (head[at.strength()], head[at.gate()], inverse_key_norm::<F, A>(key));
    let n = d_dots.len();
    let (similarity, content, inverse_norm) = (&similarity[..n], &content[..n], &inverse_norm[..n]);
    let row_factor = &mut row_factor[..n];
    for i in 0..n {
        d_dots[i] = content[i] * (gate * d_dots[i] - mean);
    }
    d[at.strength()] = dot::<F, A>(d_dots, similarity);
    for i in 0..n {
        let (d_k, norm) = (strength * d_dots[i], inverse_norm[i]);
        row_factor[i] = A::fma(-(d_k * similarity[i]), norm * norm, row_factor[i]);
        d_dots[i] = d_k * (inverse_key * norm);
    }
    let through_norm = strength * d[at.strength()] * inverse_key * inverse_key;
    for (d_key, key) in d[at.key()].iter_mut().zip(key) {
        *d_key = -(through_norm * *key);
    }
}
