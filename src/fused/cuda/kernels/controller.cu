// Controller cells, element by element: the products around them are those of `forward.cu` and `backward.cu`.

// LSTM, gates in PyTorch's order: i, f, o = sigmoid(..)   g = tanh(..)   c = f prev_c + i g   h = o tanh(c)
// `sums` are W z, `c` holds prev_c at j on entry. Keeps gates (4H), c and tanh(c) at j where `keep`. Returns h at j.
DEVICE real lstm(const Sizes &p, const Sums &sums, int s, int j, real *c, bool keep, real *gates, real *cell, real *tanh_cell) {
    const real i = sigmoid(sums.total(s, j)), f = sigmoid(sums.total(s, p.h + j));
    const real g = tanh(sums.total(s, 2 * p.h + j)), o = sigmoid(sums.total(s, 3 * p.h + j));
    const real next = f * *c + i * g, tanh_c = tanh(next);
    *c = next;
    if (keep) {
        gates[j] = i;
        gates[p.h + j] = f;
        gates[2 * p.h + j] = g;
        gates[3 * p.h + j] = o;
        *cell = next;
        *tanh_cell = tanh_c;
    }
    return o * tanh_c;
}

// From d_h, and d_c from step t + 1, to the gradients before the gates' activation, in `d_gates` (4H, G) of this sequence and
// in `saved` (4H); d_c becomes the gradient of prev_c.
DEVICE void lstm_backward(const Sizes &p, int j, const real *gates, real prev_c, real tanh_c, real d_h, real *d_c,
                          real *d_gates, real *saved) {
    const real i = gates[j], f = gates[p.h + j], g = gates[2 * p.h + j], o = gates[3 * p.h + j];
    const real d_o = d_h * tanh_c; // h = o tanh(c)
    const real d_cell = *d_c + d_h * o * (1 - tanh_c * tanh_c);
    const real d_i = d_cell * g, d_f = d_cell * prev_c, d_g = d_cell * i; // c = f prev_c + i g
    *d_c = d_cell * f;
    saved[j] = d_gates[j * p.together] = d_i * i * (1 - i); // i = sigmoid(..)
    saved[p.h + j] = d_gates[(p.h + j) * p.together] = d_f * f * (1 - f);
    saved[2 * p.h + j] = d_gates[(2 * p.h + j) * p.together] = d_g * (1 - g * g); // g = tanh(..)
    saved[3 * p.h + j] = d_gates[(3 * p.h + j) * p.together] = d_o * o * (1 - o);
}

// Feed-forward: h = tanh(W z)
DEVICE real feedforward(const Sums &sums, int s, int j, bool keep, real *gates) {
    const real h = tanh(sums.total(s, j));
    if (keep) {
        gates[j] = h;
    }
    return h;
}

// The gradient before the tanh, in `d_gates` (H, G) and in `saved`.
DEVICE void feedforward_backward(const Sizes &p, int j, real h, real d_h, real *d_gates, real *saved) {
    saved[j] = d_gates[j * p.together] = d_h * (1 - h * h);
}
