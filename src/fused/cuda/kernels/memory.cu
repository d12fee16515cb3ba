// Reading and writing the memory (M, N).

// Eq. 3, 4: M_i <- M_i (1 - w(i) e) + w(i) a, as M_i + w(i) (a - e M_i), of one cell.
DEVICE real written(real value, real w, real e, real a) {
    return value + w * (a - e * value);
}

// All writes of one step, in head order, on one cell, m of row i. `weightings` (R + W, N)
DEVICE real written_by_all(const Sizes &p, const real *emitted, const real *weightings, int m, int i, real value) {
    for (int head = p.reads; head < p.heads(); head++) {
        const real *values = emitted + p.head_at(head);
        value = written(value, weightings[head * p.n + i], values[p.erase() + m], values[p.add() + m]);
    }
    return value;
}

// Those of the heads before `last` alone, on a lane's rows of column m; `weightings` from its first row on.
template <typename Lanes>
DEVICE void write_rows(const Sizes &p, const Lanes &of, int last, const real *emitted, const real *weightings, int m, Rows &rows) {
    for (int head = p.reads; head < last; head++) {
        const real *values = emitted + p.head_at(head);
        const real e = values[p.erase() + m], a = values[p.add() + m];
        EACH_TEAM_ROW(p, of, q, far) {
            rows.at[q] = written(rows.at[q], weightings[head * p.n + far], e, a);
        }
    }
}

// The segment that step t is in, and its place there: memories are kept before the first step of each. Mostly a segment is a
// step, and nothing is divided.
struct Segment {
    int index, place;
    METHOD Segment(const Buffers &b, int t) {
        index = b.segment == 1 ? t - 1 : (t - 1) / b.segment;
        place = t - 1 - index * b.segment;
    }
};

// A warp's columns, of `memory` from the first of them on, into its lanes' registers and out of them.
DEVICE void load(const Sizes &p, const Columns &columns, int begin, const real *memory, Rows *cells) {
    memory += LANE;
    EACH_COLUMN(p, columns, begin, c) {
        EACH_ROW(p, q, far) {
            cells[c].at[q] = memory[c * p.n + far];
        }
    }
}

DEVICE void store(const Sizes &p, const Columns &columns, int begin, real *memory, const Rows *cells) {
    memory += LANE;
    EACH_COLUMN(p, columns, begin, c) {
        EACH_ROW(p, q, far) {
            memory[c * p.n + far] = cells[c].at[q];
        }
    }
}

// Eq. 2 backwards: d_w(i) += d_r . M_i, by rows. d_r comes from the controller and from the output.
DEVICE void read_backward_rows(const Sizes &p, const Team &team, const real *memory, const real *d_read,
                               const real *d_shown, const real *key, Rows &d_w, real &key_square) {
    memory += team.lane;
#pragma unroll 4
    for (int m = 0; m < p.m; m++) {
        const real d = d_read[m] + d_shown[m];
        key_square += key[m] * key[m];
        EACH_TEAM_ROW(p, team, q, far) {
            d_w.at[q] += d * memory[m * p.n + far];
        }
    }
}

// Eq. 3, 4 backwards: d_w(i) += d_M'_i . (a - e M_i), by rows, for one write head: M as it found it, M' as the heads after it
// left it. `d_memory` is the gradient after all writes.
DEVICE void write_backward_rows(const Sizes &p, const Team &team, const real *memory, const real *d_memory, int head,
                                const real *emitted, const real *weightings, Rows &d_w, real &key_square) {
    const real *key = emitted + p.head_at(head);
    memory += team.lane;
    d_memory += team.lane;
    weightings += team.lane;
#pragma unroll 4
    for (int m = 0; m < p.m; m++) {
        const real e = key[p.erase() + m], a = key[p.add() + m];
        key_square += key[m] * key[m];
        Rows found, d_written;
        EACH_TEAM_ROW(p, team, q, far) {
            found.at[q] = memory[m * p.n + far];
            d_written.at[q] = d_memory[m * p.n + far];
        }
        if (p.writes > 1) {
            write_rows(p, team, head, emitted, weightings, m, found);
            for (int after = head + 1; after < p.heads(); after++) {
                const real erased = emitted[p.head_at(after) + p.erase() + m];
                EACH_TEAM_ROW(p, team, q, far) {
                    d_written.at[q] -= weightings[after * p.n + far] * erased * d_written.at[q];
                }
            }
        }
        EACH_TEAM_ROW(p, team, q, far) {
            d_w.at[q] += d_written.at[q] * (a - e * found.at[q]);
        }
    }
}
