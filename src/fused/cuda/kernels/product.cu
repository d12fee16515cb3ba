// Products of weights and vectors. Bias is the first column of W, since every z begins with a 1.

// The matrices in the order of the controller's layers, then the heads'; forward W^T (K, J), backward W (J, K), rows padded.
DEVICE int matrices(const Sizes &p) {
    return p.layers + (p.n > 0);
}

DEVICE int rows_of(const Sizes &p, int matrix, int back) {
    const int inputs = matrix < p.layers ? p.inputs(matrix) : 1 + p.h, outputs = matrix < p.layers ? p.outputs() : p.emitted();
    return back ? outputs : inputs;
}

DEVICE int size_of(const Sizes &p, int matrix, int back) {
    return rows_of(p, matrix, back) * padded(rows_of(p, matrix, !back));
}

// Where a matrix begins among the packed weights.
DEVICE long long packed_at(const Sizes &p, int matrix, int back) {
    long long at = back ? size_of(p, matrix, FORWARD) : 0;
    for (int before = 0; before < matrix; before++) {
        at += size_of(p, before, FORWARD) + size_of(p, before, BACKWARD);
    }
    return at;
}

// A matrix (inputs, padded(outputs)) as a product takes it. Its first rows may lie in shared memory for the whole launch.
struct Matrix {
    const real *weights, *resident;
    int inputs, outputs, resident_rows;
};

// `room` values of shared memory go to the heads' matrix first, then to the layers'.
DEVICE Matrix matrix_of(const Sizes &p, const Buffers &b, const real *resident, int matrix, int back) {
    int before = matrix < p.layers && p.n > 0 ? size_of(p, p.layers, back) : 0;
    for (int other = 0; matrix < p.layers && other < matrix; other++) {
        before += size_of(p, other, back);
    }
    const int rows = rows_of(p, matrix, back), outputs = rows_of(p, matrix, !back);
    const int left = p.room[back] > before ? p.room[back] - before : 0;
    return Matrix{b.packed + packed_at(p, matrix, back), resident + before, rows, outputs, least(left / padded(outputs), rows)};
}

// Fills the shared memory for weights.
DEVICE void load_resident(const Sizes &p, const Buffers &b, real *resident, int back) {
    for (int matrix = 0; matrix < matrices(p); matrix++) {
        const Matrix w = matrix_of(p, b, resident, matrix, back);
        copy_ahead((real *)w.resident, w.weights, w.resident_rows * padded(w.outputs));
    }
}

// How the threads share out a product: each takes four neighbouring outputs, 16 bytes a load, for up to four sequences, and
// every `parts`th input, so that all threads have work however few the outputs are.
struct Shares {
    int stride, quad, sets, groups, units, parts;
    METHOD Shares(const Sizes &p, int inputs, int outputs) {
        stride = padded(outputs);
        quad = least(p.together, 4);
        sets = p.together / quad;
        groups = stride / 4;
        units = groups * sets;
        parts = units < THREADS ? least(THREADS / units, inputs) : 1;
    }
};

// What `product` leaves: partial sums, (parts, G, stride).
struct Sums {
    const real *partial;
    int parts, stride, together;
    METHOD real total(int s, int output) const {
        real sum = partial[s * stride + output];
        for (int part = 1; part < parts; part++) {
            sum += partial[(part * together + s) * stride + output];
        }
        return sum;
    }
};

// The most values that products with up to so many outputs need for their partial sums.
DEVICE int partial_size(const Sizes &p, int outputs) {
    const int most = p.together * padded(outputs);
    return most > 4 * least(p.together, 4) * THREADS ? most : 4 * least(p.together, 4) * THREADS;
}

// Rows of the first layer's matrix beyond the resident ones, which a thread keeps in registers for the whole launch.
struct Held {
    Four rows[MOST_HELD];
};

// The most rows beyond the resident ones that a thread takes: each takes as many, or one less.
DEVICE int most_beyond(const Shares &share, const Matrix &w) {
    return over(w.inputs - w.resident_rows, share.parts);
}

DEVICE int held_rows(const Sizes &p, const Matrix &w) {
    const Shares share(p, w.inputs, w.outputs);
    const int left = most_beyond(share, w);
    return share.units <= THREADS && p.n <= 256 ? least(left, p.blocks < 2 ? MOST_HELD : 4) : 0;
}

// The first input of a thread's part that is not resident.
DEVICE int first_beyond(const Shares &share, const Matrix &w, int part) {
    return part < w.resident_rows ? part + over(w.resident_rows - part, share.parts) * share.parts : part;
}

DEVICE Held hold(const Sizes &p, const Matrix &w) {
    Held held;
    const int count = held_rows(p, w);
    const Shares share(p, w.inputs, w.outputs);
    const int part = THREAD / share.units, group = THREAD % share.units % share.groups;
    int i = first_beyond(share, w, part);
#pragma unroll
    for (int k = 0; k < MOST_HELD; k++, i += share.parts) {
        if (k < count && part < share.parts && i < w.inputs) {
            held.rows[k] = *(const Four *)(w.weights + (long long)i * share.stride + 4 * group);
        } else {
            held.rows[k] = Four{{0, 0, 0, 0}};
        }
    }
    return held;
}

// sums(q, o) += w(o) in(q), for the sequences q of a thread
DEVICE void accumulate(Four *sums, const Four &w, const real *in, int quad) {
    if (quad == 4) {
        const Four values = *(const Four *)in;
#pragma unroll
        for (int q = 0; q < 4; q++) {
            for (int o = 0; o < 4; o++) {
                sums[q].at[o] += w.at[o] * values.at[q];
            }
        }
    } else {
#pragma unroll
        for (int q = 0; q < 2; q++) {
            if (q < quad) {
                const real value = in[q];
                for (int o = 0; o < 4; o++) {
                    sums[q].at[o] += w.at[o] * value;
                }
            }
        }
    }
}

// Calls `row(i)` for a thread's rows, `apart` from one another and below `end`: `most` of them, of which the last may be beyond.
template <typename Row> DEVICE void each_row(int first, int apart, int most, int end, Row row) {
#pragma unroll 4
    for (int k = 0; k + 1 < most; k++) {
        row(first + k * apart);
    }
    if (most > 0 && first + (most - 1) * apart < end) {
        row(first + (most - 1) * apart);
    }
}

// out(s, o) = sum_i w(i, o) in(i, s), in (inputs, G). The first `count` rows of a thread beyond the resident ones are held.
DEVICE Sums product(const Sizes &p, const Matrix &w, const Held &held, int count, const real *in, real *partial) {
    const Shares share(p, w.inputs, w.outputs);
    for (int e = THREAD; e < share.parts * share.units; e += THREADS) {
        const int part = e / share.units, unit = e % share.units, set = unit / share.groups, group = unit % share.groups;
        const real *values = in + set * share.quad;
        Four sums[4];
        for (int q = 0; q < 4; q++) {
            sums[q] = Four{{0, 0, 0, 0}};
        }
        const int first = first_beyond(share, w, part), most = most_beyond(share, w);
#pragma unroll
        for (int k = 0; k < MOST_HELD; k++) {
            const int i = first + k * share.parts;
            if (k < count && (k + 1 < most || i < w.inputs)) {
                accumulate(sums, held.rows[k], values + i * p.together, share.quad);
            }
        }
        each_row(first + count * share.parts, share.parts, most - count, w.inputs, [&](int i) {
            // a copy, or the compiler makes four loads of 4 bytes of it
            const Four four = *(const Four *)(w.weights + (long long)i * share.stride + 4 * group);
            accumulate(sums, four, values + i * p.together, share.quad);
        });
        each_row(part, share.parts, over(w.resident_rows, share.parts), w.resident_rows, [&](int i) {
            accumulate(sums, *(const Four *)(w.resident + i * share.stride + 4 * group), values + i * p.together, share.quad);
        });
        for (int q = 0; q < 4; q++) {
            if (q < share.quad) {
                *(Four *)(partial + (part * p.together + set * share.quad + q) * share.stride + 4 * group) = sums[q];
            }
        }
    }
    __syncthreads();
    return Sums{partial, share.parts, share.stride, p.together};
}

// Weights as the products take them, from theta: LSTM's two biases add up, padding is 0. Every thread of every block its own.
KERNEL ntm_pack(const Sizes, const Buffers b) {
    real *packed = (real *)b.packed;
    for (int e = blockIdx.x * THREADS + THREAD; e < b.pack_count; e += gridDim.x * THREADS) {
        const int first = b.pack_first[e], second = b.pack_second[e];
        packed[e] = first < 0 ? real(0) : second < 0 ? b.theta[first] : b.theta[first] + b.theta[second];
    }
}
