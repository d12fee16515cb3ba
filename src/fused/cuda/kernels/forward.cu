// The forward pass of one sequence: the time loop, sections in the order of the paper. The output layer is one product over
// all rows of `shown`, outside of here, since nothing in the loop waits for it.

// What a block keeps in shared memory.
struct Forward {
    real *z;      // of all layers
    real *cell;   // (L, H)
    real *shown;  // (1 + H + R M)
    real *emitted;
    real *partial;
    real *similarity, *gated, *weighting; // (R + W, N)
    real *inverse_norm; // (N)
    real *memory; // M_t (M, N)
};

// All layers of the controller: from the input and the previous reads to h in `shown`.
DEVICE void controller(const Sizes &p, const Buffers &b, const Forward &at, long long row) {
    for (int l = 0; l < p.layers; l++) {
        real *z = at.z + p.z_at(l);
        if (b.keep) {
            copy(b.z + row * p.z_at(p.layers) + p.z_at(l), z, p.inputs(l));
        }
        const Sums sums = product(b.packed + p.layer_at(l), z, p.inputs(l), p.outputs(), at.partial);
        real *gates = b.gates + (row * p.layers + l) * p.outputs();
        const long long state = (row * p.layers + l) * p.h;
        for (int j = THREAD; j < p.h; j += THREADS) {
            real h;
            if (p.recurrent) {
                h = lstm(p, sums, j, at.cell + l * p.h, b.keep, gates, b.cells + state, b.tanh_cells + state);
                z[1 + p.below(l) + j] = h; // prev_h of the next step
            } else {
                h = feedforward(sums, j, b.keep, gates);
            }
            real *above = l + 1 < p.layers ? at.z + p.z_at(l + 1) : at.shown;
            above[1 + j] = h;
        }
        __syncthreads();
    }
}

// What the heads emit, with all activations but the shift's.
DEVICE void heads(const Sizes &p, const Buffers &b, const Forward &at) {
    const real *weights = b.packed + p.layer_at(p.layers);
    const Sums sums = product(weights, at.shown, 1 + p.h, p.emitted(), at.partial);
    for (int e = THREAD; e < p.emitted(); e += THREADS) {
        at.emitted[e] = activate(p, place_in_head(p, e), sums.total(e));
    }
    __syncthreads();
}

// All heads in one step: addressing on M_{t-1}, reads from it, then the writes in head order.
DEVICE void memory(const Sizes &p, const Buffers &b, const Forward &at, long long row, real *snapshot) {
    real *kept_heads = b.heads + row * p.emitted();
    dots_and_norms(p, at.memory, at.emitted, at.similarity, at.inverse_norm, b.keep, b.inverse_norms + row * p.n);
    __syncthreads();
    for (int head = WARP; head < p.heads(); head += WARPS) {
        const int part = head * p.n;
        const long long kept = row * p.heads() * p.n + part;
        address(p, at.emitted + p.head_at(head), at.inverse_norm, at.similarity + part, at.gated + part, at.weighting + part, b.keep,
                Kept{b.similarity + kept, b.content + kept, b.shifted + kept, b.weightings + kept});
    }
    __syncthreads();
    // Eq. 2: r = sum_i w(i) M_i
    for (int e = WARP; e < p.reads * p.m; e += WARPS) {
        const real read = column_sum(p, at.weighting + e / p.m * p.n, at.memory + e % p.m * p.n);
        if (LANE == 0) {
            at.shown[1 + p.h + e] = read;
            at.z[1 + p.x + e] = read; // for the next step
        }
    }
    if (b.keep) {
        copy(kept_heads, at.emitted, p.emitted());
    }
    __syncthreads();
    // Eq. 3, 4: M_i <- M_i (1 - w(i) e) + w(i) a
    for (int e = THREAD; e < p.cells(); e += THREADS) {
        const real value = at.memory[e];
        if (snapshot) {
            snapshot[e] = value;
        }
        at.memory[e] = written_by(p, p.reads, p.heads(), at.emitted, at.weighting, e / p.n, e % p.n, value);
    }
}

KERNEL ntm_forward(const Sizes given, const Buffers b) {
    SIZES(given);
    extern __shared__ Four shared_memory[];
    Shared shared = {(real *)shared_memory};
    Forward at;
    at.z = shared.take(p.z_at(p.layers));
    at.cell = shared.take(p.layers * p.h);
    at.shown = shared.take(p.shown());
    at.emitted = shared.take(p.emitted());
    at.similarity = shared.take(p.heads() * p.n);
    at.gated = shared.take(p.heads() * p.n);
    at.weighting = shared.take(p.heads() * p.n);
    at.inverse_norm = shared.take(p.n);
    const long long sequence = blockIdx.x;
    at.memory = b.in_shared ? shared.take(p.cells()) : b.spare + sequence * (p.writes > 1 ? p.writes : 1) * p.cells();
    at.partial = shared.take(partial_size(p.outputs() > p.emitted() ? p.outputs() : p.emitted()));

    // the state before the first step
    const int steps = b.lengths[sequence];
    const long long first = b.first_row[sequence];
    for (int l = 0; l < p.layers; l++) {
        real *z = at.z + p.z_at(l);
        if (THREAD == 0) {
            z[0] = 1;
        }
        if (p.recurrent) {
            copy(z + 1 + p.below(l), b.hidden + l * p.h, p.h);
            copy(at.cell + l * p.h, b.cell + l * p.h, p.h);
        }
    }
    if (THREAD == 0) {
        at.shown[0] = 1;
    }
    copy(at.z + 1 + p.x, b.read, p.reads * p.m);
    copy(at.weighting, b.weighting, p.heads() * p.n);
    copy(at.memory, b.memory, p.cells());

    for (int t = 1; t <= steps; t++) {
        const long long row = first + t - 1;
        copy(at.z + 1, b.inputs + row * p.x, p.x);
        __syncthreads();
        controller(p, b, at, row);
        if (p.n > 0) {
            heads(p, b, at);
            const bool keeps = b.keep && (t - 1) % b.segment == 0;
            real *snapshots = b.snapshots + (b.first_snapshot[sequence] + (t - 1) / b.segment) * (long long)p.cells();
            memory(p, b, at, row, keeps ? snapshots : nullptr);
        }
        copy(b.shown + row * p.shown(), at.shown, p.shown());
    }
}
