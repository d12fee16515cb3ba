// Controller cells, element by element: the products around them are those of `forward.cu` and `backward.cu`.

// LSTM, gates in PyTorch's order: i, f, o = sigmoid(..)   g = tanh(..)   c = f prev_c + i g   h = o tanh(c)
// `sums` are W z, `c` holds prev_c on entry. Keeps gates (4H), c and tanh(c). Returns h at j.
DEVICE real lstm(const Sizes &p, const Sums &sums, int j, real *c, bool keep, real *gates, real *cells, real *tanh_cells) {
    const real i = sigmoid(sums.total(j)), f = sigmoid(sums.total(p.h + j));
    const real g = tanh(sums.total(2 * p.h + j)), o = sigmoid(sums.total(3 * p.h + j));
    c[j] = f * c[j] + i * g;
    const real tanh_c = tanh(c[j]);
    if (keep) {
        gates[j] = i;
        gates[p.h + j] = f;
        gates[2 * p.h + j] = g;
        gates[3 * p.h + j] = o;
        cells[j] = c[j];
        tanh_cells[j] = tanh_c;
    }
    return o * tanh_c;
}

// From d_h, and d_c from step t + 1, to the gradients before the gates' activation, in `d_gates` and in place of the gates;
// d_c becomes the gradient of prev_c.
DEVICE void lstm_backward(const Sizes &p, int j, real *gates, const real *prev_c, const real *tanh_c, real d_h, real *d_c, real *d_gates) {
    const real i = gates[j], f = gates[p.h + j], g = gates[2 * p.h + j], o = gates[3 * p.h + j];
    const real d_o = d_h * tanh_c[j]; // h = o tanh(c)
    const real d_cell = d_c[j] + d_h * o * (1 - tanh_c[j] * tanh_c[j]);
    const real d_i = d_cell * g, d_f = d_cell * prev_c[j], d_g = d_cell * i; // c = f prev_c + i g
    d_c[j] = d_cell * f;
    gates[j] = d_gates[j] = d_i * i * (1 - i); // i = sigmoid(..)
    gates[p.h + j] = d_gates[p.h + j] = d_f * f * (1 - f);
    gates[2 * p.h + j] = d_gates[2 * p.h + j] = d_g * (1 - g * g); // g = tanh(..)
    gates[3 * p.h + j] = d_gates[3 * p.h + j] = d_o * o * (1 - o);
}

// Feed-forward: h = tanh(W z)
DEVICE real feedforward(const Sums &sums, int j, bool keep, real *gates) {
    const real h = tanh(sums.total(j));
    if (keep) {
        gates[j] = h;
    }
    return h;
}

// The gradient before the tanh, in place of its output and in `d_gates`.
DEVICE void feedforward_backward(int j, real *gates, real d_h, real *d_gates) {
    gates[j] = d_gates[j] = d_h * (1 - gates[j] * gates[j]);
}
