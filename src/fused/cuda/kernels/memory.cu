// Reading and writing the memory (M, N).

// Eq. 3, 4: M_i <- M_i (1 - w(i) e) + w(i) a, as M_i + w(i) (a - e M_i), of one cell.
DEVICE real written(real value, real w, real e, real a) {
    return value + w * (a - e * value);
}

// The writes of all heads of one step, in head order, on one cell, m of row i. `weightings` (R + W, N)
DEVICE real written_by_all(const Sizes &p, const real *emitted, const real *weightings, int m, int i, real value) {
    for (int head = p.reads; head < p.heads(); head++) {
        const real *values = emitted + p.head_at(head);
        value = written(value, weightings[head * p.n + i], values[p.erase() + m], values[p.add() + m]);
    }
    return value;
}

// Eq. 2 backwards: d_w(i) += d_r . M_i, by rows. d_r comes from the controller and from the output.
DEVICE void read_backward_rows(const Sizes &p, const Team &team, const real *memory, const real *d_read, const real *d_shown, const real *key, Rows &d_w, real &key_square) {
#pragma unroll 4
    for (int m = 0; m < p.m; m++) {
        const real d = d_read[m] + d_shown[m];
        key_square += key[m] * key[m];
        EACH_TEAM_ROW(p, team, q, i) {
            d_w.at[q] += d * memory[m * p.n + i];
        }
    }
}

// Eq. 3, 4 backwards: d_w(i) += d_M'_i . (a - e M_i), by rows, for one write head: M as it found it, M' as the heads after it
// left it. `d_memory` is the gradient after all writes.
DEVICE void write_backward_rows(const Sizes &p, const Team &team, const real *memory, const real *d_memory, int head, const real *emitted, const real *weightings, Rows &d_w, real &key_square) {
    const real *key = emitted + p.head_at(head);
#pragma unroll 4
    for (int m = 0; m < p.m; m++) {
        const real e = key[p.erase() + m], a = key[p.add() + m];
        key_square += key[m] * key[m];
        EACH_TEAM_ROW(p, team, q, i) {
            real found = memory[m * p.n + i], d_written = d_memory[m * p.n + i];
            for (int other = p.reads; p.writes > 1 && other < p.heads(); other++) {
                const real *values = emitted + p.head_at(other);
                const real w = weightings[other * p.n + i];
                if (other < head) {
                    found = written(found, w, values[p.erase() + m], values[p.add() + m]);
                } else if (other > head) {
                    d_written -= w * values[p.erase() + m] * d_written;
                }
            }
            d_w.at[q] += d_written * (a - e * found);
        }
    }
}
