//! Controller cells, elementwise: the matrix products around them are `forward`'s and `backward`'s.

use crate::simd::{Arch, Float};

/// LSTM, gates in PyTorch's order. On entry `gates` (4H) holds W z; on return i, f, g, o after their activation.
///
///     i, f, o = sigmoid(..)   g = tanh(..)   c = f prev_c + i g   h = o tanh(c)
#[inline(always)]
pub fn lstm<F: Float, A: Arch>(gates: &mut [F], prev_c: &[F], c: &mut [F], tanh_c: &mut [F], h: &mut [F]) {
    let hidden = h.len();
    let (sigmoids, rest) = gates[..4 * hidden].split_at_mut(2 * hidden);
    let (g, o) = rest.split_at_mut(hidden);
    for gate in sigmoids.iter_mut() {
        *gate = gate.sigmoid::<A>();
    }
    for gate in g.iter_mut() {
        *gate = gate.tanh::<A>();
    }
    for gate in o.iter_mut() {
        *gate = gate.sigmoid::<A>();
    }
    // slices of one length each, so that the loops need no checks
    let (i, f, g, o) = (&sigmoids[..hidden], &sigmoids[hidden..][..hidden], &g[..hidden], &o[..hidden]);
    let (prev_c, c, tanh_c) = (&prev_c[..hidden], &mut c[..hidden], &mut tanh_c[..hidden]);
    for j in 0..hidden {
        c[j] = A::fma(f[j], prev_c[j], i[j] * g[j]);
    }
    for j in 0..hidden {
        tanh_c[j] = c[j].tanh::<A>();
    }
    for j in 0..hidden {
        h[j] = o[j] * tanh_c[j];
    }
}

/// From the gradients of h and c (the latter from step t + 1) to those before the gates' activation, in place of the
/// gates; d_c becomes the gradient of prev_c.
#[inline(always)]
pub fn lstm_backward<F: Float>(gates: &mut [F], prev_c: &[F], tanh_c: &[F], d_h: &[F], d_c: &mut [F]) {
    let hidden = d_h.len();
    let (i, rest) = gates[..4 * hidden].split_at_mut(hidden);
    let (f, rest) = rest.split_at_mut(hidden);
    let (g, o) = rest.split_at_mut(hidden);
    let (i, f, g, o) = (&mut i[..hidden], &mut f[..hidden], &mut g[..hidden], &mut o[..hidden]);
    let (prev_c, tanh_c, d_c) = (&prev_c[..hidden], &tanh_c[..hidden], &mut d_c[..hidden]);
    for j in 0..hidden {
        let d_o = d_h[j] * tanh_c[j]; // h = o tanh(c)
        let d_cell = d_c[j] + d_h[j] * o[j] * (F::ONE - tanh_c[j] * tanh_c[j]);
        let (d_i, d_f, d_g) = (d_cell * g[j], d_cell * prev_c[j], d_cell * i[j]); // c = f prev_c + i g
        d_c[j] = d_cell * f[j];
        i[j] = d_i * i[j] * (F::ONE - i[j]); // i = sigmoid(..)
        f[j] = d_f * f[j] * (F::ONE - f[j]);
        g[j] = d_g * (F::ONE - g[j] * g[j]); // g = tanh(..)
        o[j] = d_o * o[j] * (F::ONE - o[j]);
    }
}

/// Feed-forward: h = tanh(W z), in place and copied out.
#[inline(always)]
pub fn feedforward<F: Float, A: Arch>(values: &mut [F], h: &mut [F]) {
    for (h, value) in h.iter_mut().zip(values) {
        *value = value.tanh::<A>();
        *h = *value;
    }
}

/// The gradient before the tanh, in place of its output.
#[inline(always)]
pub fn feedforward_backward<F: Float>(values: &mut [F], d_h: &[F]) {
    for (value, d_h) in values.iter_mut().zip(d_h) {
        *value = *d_h * (F::ONE - *value * *value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::slopes::{assert_slopes, values};
    use super::*;
    use crate::simd::Plain;

    const H: usize = 3;

    #[test]
    fn lstm_backward_is_the_slope_of_lstm() {
        let run = |x: &[f64]| {
            let (mut gates, prev_c) = (x[..4 * H].to_vec(), &x[4 * H..]);
            let [mut c, mut tanh_c, mut h] = [[0.0; H]; 3];
            lstm::<f64, Plain>(&mut gates, prev_c, &mut c, &mut tanh_c, &mut h);
            (gates, tanh_c, [h, c].concat())
        };
        let (x, d_out) = (values(5 * H, 1), values(2 * H, 2));
        let (mut gates, tanh_c, _) = run(&x);
        let (d_h, mut d_c) = (&d_out[..H], d_out[H..].to_vec());
        lstm_backward(&mut gates, &x[4 * H..], &tanh_c, d_h, &mut d_c);
        let parts = [("d_i", H), ("d_f", H), ("d_g", H), ("d_o", H), ("d_prev_c", H)];
        assert_slopes(&parts, &x, &d_out, |x| run(x).2, &[gates, d_c].concat());
    }

    #[test]
    fn feedforward_backward_is_the_slope_of_feedforward() {
        let forward = |x: &[f64]| {
            let mut h = [0.0; H];
            feedforward::<f64, Plain>(&mut x.to_vec(), &mut h);
            h.to_vec()
        };
        let (x, d_out) = (values(H, 1), values(H, 2));
        let mut d = forward(&x);
        feedforward_backward(&mut d, &d_out);
        assert_slopes(&[("d", H)], &x, &d_out, forward, &d);
    }
}
