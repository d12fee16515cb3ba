//! Addressing (paper, section 3.3): from what a head emits to its weighting over the N rows, and back.

use super::vector::{Lanes, axpy, dot, dots, lanes_mut, padded_softmax, softmax, softmax_backward};
use crate::fused::plan::Plan;
use crate::model::{Activation, Emitted, SHARPEN_EPSILON};
use crate::ops::COSINE_EPSILON;
use crate::simd::{Arch, Float, LANES};
use crate::tasks::Batch;

/// What the blur of a batch makes of each shift, the output of a softmax: scale shift + floor.
#[derive(Clone, Copy)]
pub struct ShiftMix<F> {
    scale: F,
    floor: F,
}

impl<F: Float> ShiftMix<F> {
    pub fn new(batch: &Batch, shifts: usize) -> ShiftMix<F> {
        let [scale, floor] = batch.mix(shifts).map(F::of);
        ShiftMix { scale, floor }
    }
}

/// Applies the activations to what one head emits, in place.
#[inline(always)]
pub fn activate<F: Float, A: Arch>(plan: &Plan, emitted: &mut [F], writes: bool, mix: ShiftMix<F>) {
    let at = plan.emitted;
    if plan.key == Activation::Tanh {
        emitted[at.key()].iter_mut().for_each(|key| *key = key.tanh::<A>());
    }
    emitted[at.strength()] = emitted[at.strength()].softplus();
    emitted[at.gate()] = emitted[at.gate()].sigmoid::<A>();
    softmax::<F, A>(&mut emitted[at.shift()]);
    emitted[at.shift()].iter_mut().for_each(|shift| *shift = *shift * mix.scale + mix.floor);
    emitted[at.sharpening()] = F::ONE + emitted[at.sharpening()].softplus();
    if writes {
        emitted[at.erase()].iter_mut().for_each(|erase| *erase = erase.sigmoid::<A>());
        if plan.add == Activation::Tanh {
            emitted[at.add()].iter_mut().for_each(|add| *add = add.tanh::<A>());
        }
    }
}

/// From gradients `d` after the activations to those before them, which replace what the head emits.
#[inline(always)]
pub fn activate_backward<F: Float, A: Arch>(
    plan: &Plan,
    emitted: &mut [F],
    d: &mut [F],
    writes: bool,
    mix: ShiftMix<F>,
) {
    let at = plan.emitted;
    let linear_or_tanh = |activation, emitted: &mut [F], d: &[F]| {
        for (value, d) in emitted.iter_mut().zip(d) {
            *value = if activation == Activation::Tanh { *d * (F::ONE - *value * *value) } else { *d };
        }
    };
    linear_or_tanh(plan.key, &mut emitted[at.key()], &d[at.key()]);
    // the slope of softplus is the sigmoid of its input, 1 - exp(-output)
    emitted[at.strength()] = d[at.strength()] * (F::ONE - (-emitted[at.strength()]).exp::<A>());
    emitted[at.gate()] = d[at.gate()] * emitted[at.gate()] * (F::ONE - emitted[at.gate()]);
    // back through scale softmax + floor
    for (shift, d) in emitted[at.shift()].iter_mut().zip(&mut d[at.shift()]) {
        (*shift, *d) = ((*shift - mix.floor) / mix.scale, *d * mix.scale);
    }
    softmax_backward::<F, A>(&emitted[at.shift()], &mut d[at.shift()]);
    emitted[at.shift()].copy_from_slice(&d[at.shift()]);
    emitted[at.sharpening()] = d[at.sharpening()] * (F::ONE - (F::ONE - emitted[at.sharpening()]).exp::<A>());
    if writes {
        for (erase, d) in emitted[at.erase()].iter_mut().zip(&d[at.erase()]) {
            *erase = *d * *erase * (F::ONE - *erase);
        }
        linear_or_tanh(plan.add, &mut emitted[at.add()], &d[at.add()]);
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

/// One head's vectors over the rows in one step, all (N). `AddressingTape` says what they hold. The forward pass reads
/// the first two and fills the others for the backward pass.
pub struct HeadTape<'a, F> {
    pub inverse_norm: &'a [F],
    pub prev_weighting: &'a [F],
    /// On entry of `address` key . M_i, on return the cosine K.
    pub similarity: &'a mut [F],
    pub content: &'a mut [F],
    pub shifted: &'a mut [F],
    pub weighting: &'a mut [F],
}

/// Eq. 5-9 for one head. `padding` (N): see `Weights`; `gated` is scratch, a ring buffer.
#[inline(always)]
pub fn address<F: Float, A: Arch>(plan: &Plan, emitted: &[F], tape: HeadTape<F>, padding: &[F], gated: &mut [F]) {
    let at = plan.emitted;
    let HeadTape { inverse_norm, prev_weighting, similarity, content, shifted, weighting } = tape;
    scores::<F, A>(emitted, at, inverse_norm, padding, similarity, content);
    // Eq. 5: w^c = softmax(v)
    padded_softmax::<F, A>(content, plan.n);
    interpolate::<F, A>(emitted[at.gate()], content, prev_weighting, rows_of(gated, plan));
    close(gated, plan);
    // Eq. 8: w~(i) = sum_k s_k w^g((i + k - S / 2) mod N), plus the epsilon of Eq. 9
    convolve::<F, A>(F::of(SHARPEN_EPSILON), emitted[at.shift()].iter(), gated, shifted);
    // Eq. 9: w = softmax(gamma ln w~)
    let gamma = emitted[at.sharpening()];
    for ((w, shifted), padding) in weighting.iter_mut().zip(shifted.iter()).zip(padding) {
        *w = A::fma(gamma, shifted.ln::<A>(), *padding);
    }
    padded_softmax::<F, A>(weighting, plan.n);
}

/// Eq. 6: K = k . M_i / (|k| |M_i|), in place of k . M_i; and the v of Eq. 5, strength K.
#[inline(always)]
fn scores<F: Float, A: Arch>(
    emitted: &[F],
    at: Emitted,
    inverse_norm: &[F],
    padding: &[F],
    similarity: &mut [F],
    content: &mut [F],
) {
    let (strength, inverse_key) = (emitted[at.strength()], inverse_key_norm::<F, A>(&emitted[at.key()]));
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

/// The gradients that meet in one head's addressing.
pub struct HeadGradients<'a, F> {
    /// On entry of the weighting, on return of the previous one. (N)
    pub d_weighting: &'a mut [F],
    /// On return of key . M_i. (N)
    pub d_dots: &'a mut [F],
    /// Grows by what multiplies M_i in its own gradient. (N)
    pub row_factor: &'a mut [F],
    /// On return of what the head emits, after the activations, except what the memory adds to the key's.
    pub d_emitted: &'a mut [F],
}

/// The scratch of `address_backward`, two ring buffers.
pub struct Rings<'a, F> {
    pub gated: &'a mut [F],
    pub d_shifted: &'a mut [F],
}

/// Eq. 9-5 backwards.
#[inline(always)]
pub fn address_backward<F: Float, A: Arch>(
    plan: &Plan,
    emitted: &[F],
    tape: HeadTape<F>,
    gradients: HeadGradients<F>,
    rings: Rings<F>,
) {
    let at = plan.emitted;
    let HeadTape { inverse_norm, prev_weighting, similarity, content, shifted, weighting } = tape;
    let HeadGradients { d_weighting, d_dots, row_factor, d_emitted } = gradients;
    let Rings { gated, d_shifted } = rings;
    let (gate, strength, key) = (emitted[at.gate()], emitted[at.strength()], &emitted[at.key()]);

    let rows = rows_of(d_shifted, plan);
    d_emitted[at.sharpening()] =
        sharpen_backward::<F, A>(emitted[at.sharpening()], weighting, shifted, d_weighting, rows);
    // Eq. 8: d_s_k = sum_i d_w~(i) w^g(i + k - S/2), d_w^g(j) = sum_k s_k d_w~(j - k + S/2)
    interpolate::<F, A>(gate, content, prev_weighting, rows_of(gated, plan));
    close(gated, plan);
    for (k, d_tap) in d_emitted[at.shift()].iter_mut().enumerate() {
        *d_tap = dot::<F, A>(rows, &gated[k..]);
    }
    close(d_shifted, plan);
    let d_gated = d_dots; // the same memory, which Eq. 7, 5 and 6 turn into the gradient of key . M_i
    // the same sum as forward with the shift reversed: S is odd, so j - k + S/2 = j + (S - 1 - k) - S/2
    convolve::<F, A>(F::ZERO, emitted[at.shift()].iter().rev(), d_shifted, d_gated);
    let [by_content, d_gate] = interpolate_backward::<F, A>(gate, content, prev_weighting, d_gated, d_weighting);
    d_emitted[at.gate()] = d_gate;
    let d_strength = content_backward::<F, A>(gate, gate * by_content, content, similarity, d_gated);
    d_emitted[at.strength()] = d_strength;
    let (d_v, inverse_key) = (d_gated, inverse_key_norm::<F, A>(key));
    cosine_backward::<F, A>(strength, inverse_key, similarity, inverse_norm, d_v, row_factor);
    // Eq. 6: through |k|: -(sum_i d_K K) / |k|^2 k, and that sum is strength d_strength
    let through_norm = strength * d_strength * inverse_key * inverse_key;
    for (d_key, key) in d_emitted[at.key()].iter_mut().zip(key) {
        *d_key = -(through_norm * *key);
    }
}

/// Eq. 9: w = softmax(u), u = gamma ln w~. d_u = w (d_w - d_w . w) by the softmax rule, then d_gamma = d_u . ln w~
/// (returned), d_w~ = d_u gamma / w~. `d_u` holds d_w before.
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

/// Eq. 7: w^g = g w^c + (1 - g) prev_w: d_prev_w = (1 - g) d_w^g in `d_prev_weighting`; returns d_w^g . w^c and
/// d_g = d_w^g . (w^c - prev_w). The third, d_w^c = g d_w^g, is left to Eq. 5.
#[inline(always)]
fn interpolate_backward<F: Float, A: Arch>(
    gate: F,
    content: &[F],
    prev_weighting: &[F],
    d_gated: &[F],
    d_prev_weighting: &mut [F],
) -> [F; 2] {
    for (d_prev, d_gated) in d_prev_weighting.iter_mut().zip(d_gated) {
        *d_prev = (F::ONE - gate) * *d_gated;
    }
    let [by_content, by_prev] = dots::<F, A, 2>(d_gated, [content, prev_weighting]);
    [by_content, by_content - by_prev]
}

/// Eq. 5: w^c = softmax(v), v = strength K: d_v = w^c (g d_w^g - mean), in place of d_w^g; returns d_strength = d_v .
/// K. `mean` is g (d_w^g . w^c).
#[inline(always)]
fn content_backward<F: Float, A: Arch>(gate: F, mean: F, content: &[F], similarity: &[F], d: &mut [F]) -> F {
    let n = d.len();
    let content = &content[..n];
    for i in 0..n {
        d[i] = content[i] * (gate * d[i] - mean);
    }
    dot::<F, A>(d, similarity)
}

/// Eq. 6: K = (k . M_i) / (|k| |M_i|), d_K = strength d_v: d_(k . M_i) = d_K / (|k| |M_i|), in place of d_v; through
/// |M_i|: -d_K K / |M_i|^2 M_i, whose factor is added to `row_factor`.
#[inline(always)]
fn cosine_backward<F: Float, A: Arch>(
    strength: F,
    inverse_key: F,
    similarity: &[F],
    inverse_norm: &[F],
    d: &mut [F],
    row_factor: &mut [F],
) {
    let n = d.len();
    let (similarity, inverse_norm, row_factor) = (&similarity[..n], &inverse_norm[..n], &mut row_factor[..n]);
    for i in 0..n {
        let (d_k, norm) = (strength * d[i], inverse_norm[i]);
        row_factor[i] = A::fma(-(d_k * similarity[i]), norm * norm, row_factor[i]);
        d[i] = d_k * (inverse_key * norm);
    }
}

#[cfg(test)]
mod tests {
    use super::super::slopes::{assert_slopes, values};
    use super::*;
    use crate::config::Recipe;
    use crate::model::Spec;
    use crate::simd::Plain;

    /// A machine of 9 rows, 5 columns and 5 shifts, all activations tanh where there is a choice.
    fn plan() -> Plan {
        let model =
            r#"{"memory": {"rows": 9, "width": 5}, "shift_range": 5, "activation": {"key": "tanh", "add": "tanh"}}"#;
        let recipe = Recipe::parse(&format!(r#"{{"model": {model}}}"#), &[]).unwrap();
        Plan::new(Spec::new(&recipe.model, 3, 3))
    }

    const MIX: ShiftMix<f64> = ShiftMix { scale: 0.75, floor: 0.05 };

    #[test]
    fn activate_backward_is_the_slope_of_activate() {
        let (plan, at) = (plan(), plan().emitted);
        let x = values(at.writing(), 1);
        let forward = |x: &[f64]| {
            let mut emitted = x.to_vec();
            activate::<f64, Plain>(&plan, &mut emitted, true, MIX);
            emitted
        };
        let d_out = values(x.len(), 2);
        let (mut emitted, mut d) = (forward(&x), d_out.clone());
        activate_backward::<f64, Plain>(&plan, &mut emitted, &mut d, true, MIX);
        let parts =
            [("key", 5), ("strength", 1), ("gate", 1), ("shift", 5), ("sharpening", 1), ("erase", 5), ("add", 5)];
        assert_slopes(&parts, &x, &d_out, forward, &emitted);
    }

    /// The vectors of one head (N), padded as on a tape.
    struct Vectors {
        inverse_norm: Vec<f64>,
        prev_weighting: Vec<f64>,
        filled: [Vec<f64>; 4], // similarity, content, shifted, weighting
    }

    impl Vectors {
        /// Forward. x: key, strength, gate, shift, sharpening, prev_w, key . M_i and 1 / |M_i|
        fn new(plan: &Plan, x: &[f64]) -> Vectors {
            let padded = |part: usize| {
                let mut vector = x[plan.emitted.reading() + part * plan.n..][..plan.n].to_vec();
                vector.resize(plan.n_stride, 0.0);
                vector
            };
            let mut vectors =
                Vectors { inverse_norm: padded(2), prev_weighting: padded(0), filled: [(); 4].map(|()| padded(1)) };
            let padding: Vec<f64> = (0..plan.n_stride).map(|i| if i < plan.n { 0.0 } else { f64::LOWEST }).collect();
            let mut gated = vec![0.0; plan.n_stride + plan.s - 1];
            address::<f64, Plain>(plan, x, vectors.tape(), &padding, &mut gated);
            vectors
        }

        fn tape(&mut self) -> HeadTape<'_, f64> {
            let [similarity, content, shifted, weighting] = &mut self.filled;
            let (inverse_norm, prev_weighting) = (&self.inverse_norm, &self.prev_weighting);
            HeadTape { inverse_norm, prev_weighting, similarity, content, shifted, weighting }
        }
    }

    #[test]
    fn address_backward_is_the_slope_of_address() {
        let plan = plan();
        let (at, n, stride) = (plan.emitted, plan.n, plan.n_stride);
        let mut x: Vec<f64> = values(at.reading() + 3 * n, 3).iter().map(|value| 0.2 + value.abs()).collect();
        x[at.gate()] = 0.3;
        x[at.sharpening()] = 1.7;
        let forward = |x: &[f64]| Vectors::new(&plan, x).filled[3].clone();

        let d_out = values(stride, 4); // beyond N too, where it must not matter
        let (mut d_weighting, mut d_dots) = (d_out.clone(), vec![0.0; stride]);
        let (mut row_factor, mut d_emitted) = (vec![1.0; stride], vec![0.0; at.reading()]);
        let [mut gated, mut d_shifted] = [(); 2].map(|()| vec![0.0; stride + plan.s - 1]);
        let gradients = HeadGradients {
            d_weighting: &mut d_weighting,
            d_dots: &mut d_dots,
            row_factor: &mut row_factor,
            d_emitted: &mut d_emitted,
        };
        let rings = Rings { gated: &mut gated, d_shifted: &mut d_shifted };
        let mut vectors = Vectors::new(&plan, &x);
        address_backward::<f64, Plain>(&plan, &x, vectors.tape(), gradients, rings);
        // row_factor M_i = d_(1 / |M_i|) d(1 / |M_i|) / dM_i, and that slope is -M_i / |M_i|^3
        let d_inverse_norm =
            row_factor.iter().zip(&vectors.inverse_norm).map(|(factor, norm)| -(factor - 1.0) / norm.powi(3));
        let d_inverse_norm: Vec<f64> = d_inverse_norm.take(n).collect();
        let d = [&d_emitted[..], &d_weighting[..n], &d_dots[..n], &d_inverse_norm].concat();
        let emitted = [("d_key", 5), ("d_strength", 1), ("d_gate", 1), ("d_shift", 5), ("d_sharpening", 1)];
        let rows = [("d_prev_weighting", n), ("d_dots", n), ("row_factor", n)];
        assert_slopes(&[&emitted[..], &rows].concat(), &x, &d_out, forward, &d);
    }
}
