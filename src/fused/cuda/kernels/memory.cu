// Reading and writing the memory (M, N).

// Eq. 6: the dot products of all keys with all rows, and 1 / |M_i| of every row. By rows: dots (R + W, N), inverse_norm (N)
DEVICE void dots_and_norms(const Sizes &p, const real *memory, const real *emitted, real *dots, real *inverse_norm, bool keep, real *kept_norm) {
    const int all = p.heads() * p.n;
    for (int e = THREAD; e < all + p.n; e += THREADS) {
        const int i = e % p.n;
        const real *column = memory + i;
        if (e < all) {
            const real *key = emitted + p.head_at(e / p.n);
            real dot = 0;
            for (int m = 0; m < p.m; m++) {
                dot += key[m] * column[m * p.n];
            }
            dots[e] = dot;
        } else {
            real square = COSINE_EPSILON;
            for (int m = 0; m < p.m; m++) {
                square += column[m * p.n] * column[m * p.n];
            }
            inverse_norm[i] = 1 / sqrt(square);
            if (keep) {
                kept_norm[i] = inverse_norm[i];
            }
        }
    }
}

// sum_i weights(i) column(i), across the lanes, for all lanes
DEVICE real column_sum(const Sizes &p, const real *weights, const real *column) {
    real sum = 0;
    for (int i = LANE; i < p.n; i += LANES) {
        sum += weights[i] * column[i];
    }
    return warp_sum(sum);
}

// Eq. 3, 4: M_i <- M_i (1 - w(i) e) + w(i) a, as M_i + w(i) (a - e M_i), of one cell.
DEVICE real written(real value, real w, real e, real a) {
    return value + w * (a - e * value);
}

// The writes of heads first..last of one step, in head order, on one cell, m of row i. `weightings` (R + W, N)
DEVICE real written_by(const Sizes &p, int first, int last, const real *emitted, const real *weightings, int m, int i, real value) {
    for (int head = first; head < last; head++) {
        const real *values = emitted + p.head_at(head);
        value = written(value, weightings[head * p.n + i], values[p.erase() + m], values[p.add() + m]);
    }
    return value;
}

// Eq. 3, 4 backwards: d_w(i) += d_M'_i . (a - e M_i), by rows. `memory` is what the head found, `d_memory` that after the write.
DEVICE void write_backward_rows(const Sizes &p, const real *memory, const real *head, const real *d_memory, real *d_weighting) {
    const real *e = head + p.erase(), *a = head + p.add();
    for (int i = THREAD; i < p.n; i += THREADS) {
        real sum = d_weighting[i];
        for (int m = 0; m < p.m; m++) {
            sum += d_memory[m * p.n + i] * (a[m] - e[m] * memory[m * p.n + i]);
        }
        d_weighting[i] = sum;
    }
}

// d_e = -sum_i w(i) d_M'_i M_i, d_a = sum_i w(i) d_M'_i, d_M_i = d_M'_i (1 - w(i) e), by columns. `d_memory` turns from the
// gradient after the write into the one before it.
DEVICE void write_backward_columns(const Sizes &p, const real *memory, const real *weighting, const real *head, real *d_memory, real *d) {
    for (int m = WARP; m < p.m; m += WARPS) {
        const real e = head[p.erase() + m];
        real d_erase = 0, d_add = 0;
        for (int i = LANE; i < p.n; i += LANES) {
            const int at = m * p.n + i;
            const real d_written = weighting[i] * d_memory[at];
            d_add += d_written;
            d_erase += d_written * memory[at];
            d_memory[at] -= e * d_written;
        }
        d_erase = warp_sum(d_erase);
        d_add = warp_sum(d_add);
        if (LANE == 0) {
            d[p.erase() + m] = -d_erase;
            d[p.add() + m] = d_add;
        }
    }
}
