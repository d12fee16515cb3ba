// The forward pass of a block's sequences: the time loop, sections in the order of the paper. The output layer is one product
// over all rows of `shown`, outside of here, since nothing in the loop waits for it.

// What a block keeps in shared memory.
struct Forward {
    Sequences all;
    real *z;       // of all layers (.., G)
    real *cell;    // (G, L, H)
    real *shown;   // (1 + H + R M, G)
    real *emitted; // (G, emitted)
    real *partial;
    real *gated, *weighting; // (G, R + W, N)
    real *memory;            // M_t (G, M, N)
    real *resident;
    real *scratch; // of the teams
};

// Begins to copy the inputs of step t to where the first layer's z has them.
DEVICE void inputs_ahead(const Sizes &p, const Buffers &b, const Forward &at, int t) {
    for (int e = THREAD; e < p.together * p.x; e += THREADS) {
        const int s = e / p.x, j = e % p.x;
        if (at.all.active(s, t)) {
            copy_one_ahead(at.z + (1 + j) * p.together + s, b.inputs + ((t - 1) * (long long)b.sequences + at.all.numbers[s]) * p.x + j);
        }
    }
}

// All layers of the controller: from the input and the previous reads to h in `shown`.
DEVICE void controller(const Sizes &p, const Buffers &b, const Forward &at, const Held &held, int t) {
#pragma unroll
    for (int l = 0; l < p.layers; l++) {
        real *z = at.z + p.z_at(l) * p.together;
        for (int e = THREAD; b.keep && e < p.together * p.inputs(l); e += THREADS) {
            const int s = e / p.inputs(l), i = e % p.inputs(l);
            if (at.all.active(s, t)) {
                b.z[at.all.row(s, t) * p.z_at(p.layers) + p.z_at(l) + i] = z[i * p.together + s];
            }
        }
        const Matrix w = matrix_of(p, b, at.resident, l, FORWARD);
        const Sums sums = product(p, w, held, l == 0 ? held_rows(p, w) : 0, z, at.partial);
        if (l == 0) {
            inputs_ahead(p, b, at, t + 1); // the product was the last to need those of this step
        }
        for (int e = THREAD; e < p.together * p.h; e += THREADS) {
            const int s = e / p.h, j = e % p.h;
            const bool keep = b.keep && at.all.active(s, t);
            const long long layer = at.all.row(s, t) * p.layers + l;
            real *gates = b.gates + layer * p.outputs(), h;
            if (p.recurrent) {
                const long long state = layer * p.h + j;
                h = lstm(p, sums, s, j, at.cell + (s * p.layers + l) * p.h + j, keep, gates, b.cells + state, b.tanh_cells + state);
                z[(1 + p.below(l) + j) * p.together + s] = h; // prev_h of the next step
            } else {
                h = feedforward(sums, s, j, keep, gates);
            }
            real *above = l + 1 < p.layers ? at.z + p.z_at(l + 1) * p.together : at.shown;
            above[(1 + j) * p.together + s] = h;
        }
        if (p.n == 0 && l + 1 == p.layers) {
            arrived();
        }
        __syncthreads();
    }
}

// What the heads emit, with all activations but the shift's.
DEVICE void heads(const Sizes &p, const Buffers &b, const Forward &at, const Held &held, int t) {
    const Sums sums = product(p, matrix_of(p, b, at.resident, p.layers, FORWARD), held, 0, at.shown, at.partial);
    for (int e = THREAD; e < p.together * p.emitted(); e += THREADS) {
        const int s = e / p.emitted(), element = e % p.emitted();
        const real value = activate(p, place_in_head(p, element), sums.total(s, element));
        at.emitted[e] = value;
        if (b.keep && at.all.active(s, t)) {
            b.heads[at.all.row(s, t) * p.emitted() + element] = value;
        }
    }
    __syncthreads();
}

// A few columns of one sequence's memory: what all heads read there, then what they write, in head order.
DEVICE void read_and_write(const Sizes &p, const Forward &at, int s, int begin, const Columns &columns, real *snapshot) {
    real *memory = at.memory + s * p.cells() + begin * p.n;
    const real *weightings = at.weighting + s * p.heads() * p.n + LANE, *emitted = at.emitted + s * p.emitted() + begin;
    Rows cells[MOST_COLUMNS];
    load(p, columns, begin, memory, cells);
    if (snapshot) {
        store(p, columns, begin, snapshot + begin * p.n, cells);
    }
    // Eq. 2: r = sum_i w(i) M_i
    for (int head = 0; head < p.reads; head++) {
        real sums[MOST_COLUMNS] = {0};
        EACH_ROW(p, q, far) {
            const real w = weightings[head * p.n + far];
            EACH_COLUMN(p, columns, begin, c) {
                sums[c] += w * cells[c].at[q];
            }
        }
        warp_sums(sums, [&](int c, real sum) {
            if (columns.has(p, begin, c)) {
                const int m = (head * p.m + begin + c) * p.together + s;
                at.shown[(1 + p.h) * p.together + m] = sum;
                at.z[(1 + p.x) * p.together + m] = sum; // for the next step
            }
        });
    }
    // Eq. 3, 4: M_i <- M_i (1 - w(i) e) + w(i) a
    for (int head = p.reads; head < p.heads(); head++) {
        const real *values = emitted + p.head_at(head);
        real e[MOST_COLUMNS], a[MOST_COLUMNS];
        EACH_COLUMN(p, columns, begin, c) {
            e[c] = values[p.erase() + c];
            a[c] = values[p.add() + c];
        }
        EACH_ROW(p, q, far) {
            const real w = weightings[head * p.n + far];
            EACH_COLUMN(p, columns, begin, c) {
                cells[c].at[q] = written(cells[c].at[q], w, e[c], a[c]);
            }
        }
    }
    store(p, columns, begin, memory, cells);
}

// All heads in one step: addressing on M_{t-1}, by rows, then reads from it and the writes, by columns.
DEVICE void memory(const Sizes &p, const Buffers &b, const Forward &at, int t) {
    Team team(p, at.scratch);
    for (int e = team.number; e < p.together * p.heads(); e += team.teams) {
        const int s = e / p.heads(), head = e % p.heads(), part = e * p.n;
        if (!at.all.active(s, t)) {
            continue;
        }
        const long long row = at.all.row(s, t), place = (row * p.heads() + head) * p.n;
        address(p, team, at.emitted + s * p.emitted() + p.head_at(head), at.memory + s * p.cells(), at.gated + part, at.weighting + part,
                b.scale, b.floor, b.keep,
                Kept{b.similarity + place, b.content + place, b.shifted + place, b.weightings + place,
                     head == 0 ? b.inverse_norms + row * p.n : nullptr,
                     b.heads + row * p.emitted() + p.head_at(head) + p.shift()});
    }
    __syncthreads();
    const Columns columns(p, MOST_COLUMNS);
    const Segment segment(b, t);
    for (int s = columns.first; s < p.together; s += columns.apart) {
        const bool keeps = b.keep && segment.place == 0;
        const long long snapshot = b.first_snapshot[at.all.numbers[s]] + segment.index;
        for (int begin = columns.begin(); at.all.active(s, t) && begin < p.m; begin += columns.step()) {
            read_and_write(p, at, s, begin, columns, keeps ? b.snapshots + snapshot * p.cells() : nullptr);
        }
    }
    arrived();
    __syncthreads();
}

KERNEL ntm_forward(const Sizes given, const Buffers b) {
    SIZES(given);
    extern __shared__ Four shared_memory[];
    Shared shared = {(real *)shared_memory};
    Forward at;
    at.all = sequences(p, b, shared);
    at.scratch = shared.take(Team::size(false));
    at.z = shared.take(p.z_at(p.layers) * p.together);
    at.cell = shared.take(p.layers * p.h * p.together);
    at.shown = shared.take(p.shown() * p.together);
    at.emitted = shared.take(p.emitted() * p.together);
    at.gated = shared.take(p.heads() * p.n * p.together);
    at.weighting = shared.take(p.heads() * p.n * p.together);
    at.partial = shared.take(partial_size(p, p.outputs() > p.emitted() ? p.outputs() : p.emitted()));
    at.memory = p.memories[FORWARD] ? shared.take(p.together * p.cells()) : b.spare + (long long)blockIdx.x * p.together * p.cells();
    at.resident = shared.take(p.room[FORWARD]);

    // the state before the first step
    load_resident(p, b, at.resident, FORWARD);
    for (int l = 0; l < p.layers; l++) {
        real *z = at.z + p.z_at(l) * p.together;
        for (int s = THREAD; s < p.together; s += THREADS) {
            z[s] = 1;
        }
        if (p.recurrent) {
            spread(p, z + (1 + p.below(l)) * p.together, b.hidden + l * p.h, p.h);
            for (int s = 0; s < p.together; s++) {
                copy(at.cell + (s * p.layers + l) * p.h, b.cell + l * p.h, p.h);
            }
        }
    }
    for (int s = THREAD; s < p.together; s += THREADS) {
        at.shown[s] = 1;
    }
    spread(p, at.z + (1 + p.x) * p.together, b.read, p.reads * p.m);
    for (int s = 0; s < p.together; s++) {
        copy(at.weighting + s * p.heads() * p.n, b.weighting, p.heads() * p.n);
        copy(at.memory + s * p.cells(), b.memory, p.cells());
    }
    const Held held = hold(p, matrix_of(p, b, at.resident, 0, FORWARD));
    const int longest = at.all.longest(p);
    clear(at.z + p.together, p.x * p.together); // of sequences that do not exist
    __syncthreads();
    inputs_ahead(p, b, at, 1);
    arrived();
    __syncthreads();

    for (int t = 1; t <= longest; t++) {
        controller(p, b, at, held, t);
        if (p.n > 0) {
            heads(p, b, at, held, t);
            memory(p, b, at, t);
        }
        for (int e = THREAD; e < p.together * p.shown(); e += THREADS) {
            const int s = e / p.shown(), j = e % p.shown();
            if (at.all.active(s, t)) {
                b.shown[at.all.row(s, t) * p.shown() + j] = at.shown[j * p.together + s];
            }
        }
    }
}
