// The backward pass of a block's sequences: the sections of `forward.cu` in mirrored order. `derivation.md` derives each line.

// What a block keeps in shared memory. d_weighting, d_memory, d_reads, d_hidden, d_cell pass from step to step.
struct Backward {
    Sequences all;
    real *d_weighting;                    // (G, R + W, N)
    real *d_memory;                       // (G, M, N)
    real *d_reads;                        // (G, R, M)
    real *d_hidden, *d_cell;              // (G, L, H)
    real *d, *d_gates;                    // (emitted, G), (outputs, G)
    real *d_above;                        // (G, H)
    real *through_norm;                   // (G, R + W)
    real *partial;
    real *resident;
    real *scratch; // of the teams
    // of the tape, what the next step needs, which is copied while this one runs
    real *emitted;                        // (G, emitted)
    real *similarity, *content, *shifted; // (G, R + W, N)
    real *weightings;                     // w_t and w_{t-1} (2, G, R + W, N)
    real *inverse_norm;                   // (G, N)
    real *gates;                          // (G, L, outputs)
    real *prev_cell, *tanh_cell;          // c_{t-1}, tanh(c_t) (G, L, H)
    real *d_shown;                        // (G, H + R M)
    real *memory;                         // M_{t-1} (G, M, N), where it is in shared memory

    METHOD real *weighting(const Sizes &p, int t) const { return weightings + t % 2 * p.together * p.heads() * p.n; }
};

// M_{t-1} of step t of a sequence, which `replay` has filled in.
DEVICE real *memory_before(const Sizes &p, const Buffers &b, int sequence, int t) {
    const Segment segment(b, t);
    return segment.place == 0 ? b.snapshots + (b.first_snapshot[sequence] + segment.index) * (long long)p.cells()
                              : b.replayed + ((long long)sequence * (b.segment - 1) + segment.place - 1) * p.cells();
}

// Fills `replayed` with the memories before the steps of the segment that step t is the last of, cell by cell.
DEVICE void replay(const Sizes &p, const Buffers &b, const Backward &at, int s, int t) {
    const int begin = t - Segment(b, t).place, sequence = at.all.numbers[s];
    for (int e = THREAD; e < p.cells(); e += THREADS) {
        real value = memory_before(p, b, sequence, begin)[e];
        for (int step = begin; step < t; step++) {
            const long long row = at.all.row(s, step);
            value = written_by_all(p, b.heads + row * p.emitted(), b.weightings + row * p.heads() * p.n, e / p.n, e % p.n, value);
            memory_before(p, b, sequence, step + 1)[e] = value;
        }
    }
}

// Begins to copy a field's row of step t, `size` values, of every sequence that is active then; `before`: of the step before.
DEVICE void stage(const Sizes &p, const Backward &at, real *to, const real *field, int size, int t, bool before = false) {
    const int at_once = size % 4 == 0 ? 4 : 1;
    for (int e = at_once * first_copier(); e < p.together * size; e += at_once * THREADS) {
        const int s = e / size;
        if (at.all.active(s, t)) {
            const real *from = field + (at.all.row(s, t) - before) * size + e % size;
            at_once == 4 ? copy_four_ahead(to + e, from) : copy_one_ahead(to + e, from);
        }
    }
}

// Begins to copy what the controller needs of the tape in step t.
DEVICE void stage_controller(const Sizes &p, const Buffers &b, const Backward &at, int t) {
    stage(p, at, at.gates, b.gates, p.layers * p.outputs(), t);
    stage(p, at, at.d_shown, b.d_shown, p.shown() - 1, t);
    if (p.recurrent) {
        stage(p, at, at.tanh_cell, b.tanh_cells, p.layers * p.h, t);
        if (t > 1) {
            stage(p, at, at.prev_cell, b.cells, p.layers * p.h, t, true);
        } else {
            for (int s = 0; s < p.together; s++) {
                copy_ahead(at.prev_cell + s * p.layers * p.h, b.cell, p.layers * p.h);
            }
        }
    }
}

// Begins to copy what the heads need of it.
DEVICE void stage_heads(const Sizes &p, const Buffers &b, const Backward &at, int t) {
    const int all = p.heads() * p.n;
    if (b.segment > 1) {
        for (int s = 0; s < p.together; s++) {
            if (t == at.all.steps[s] || (t < at.all.steps[s] && t % b.segment == 0)) {
                replay(p, b, at, s, t);
            }
        }
        __syncthreads();
    }
    stage(p, at, at.emitted, b.heads, p.emitted(), t);
    stage(p, at, at.similarity, b.similarity, all, t);
    stage(p, at, at.content, b.content, all, t);
    stage(p, at, at.shifted, b.shifted, all, t);
    stage(p, at, at.inverse_norm, b.inverse_norms, p.n, t);
    if (t > 1) {
        stage(p, at, at.weighting(p, t - 1), b.weightings, all, t, true);
    }
    for (int s = 0; s < p.together; s++) {
        if (t == 1) {
            copy_ahead(at.weighting(p, 0) + s * all, b.weighting, all);
        }
        if (t == at.all.steps[s]) {
            copy_ahead(at.weighting(p, t) + s * all, b.weightings + at.all.row(s, t) * all, all);
        }
        if (p.memories[BACKWARD] > 1 && at.all.active(s, t)) {
            copy_ahead(at.memory + s * p.cells(), memory_before(p, b, at.all.numbers[s], t), p.cells());
        }
    }
}

DEVICE const real *found(const Sizes &p, const Buffers &b, const Backward &at, int s, int t) {
    return p.memories[BACKWARD] > 1 ? at.memory + s * p.cells() : memory_before(p, b, at.all.numbers[s], t);
}

// One head of one sequence in step t: what reads and writes pass back to its weighting, and on through its addressing.
DEVICE void head_backward(const Sizes &p, const Buffers &b, const Backward &at, Team &team, int s, int head, int t) {
    const int part = (s * p.heads() + head) * p.n;
    const real *emitted = at.emitted + s * p.emitted(), *values = emitted + p.head_at(head), *memory = found(p, b, at, s, t);
    const real *weightings = at.weighting(p, t) + s * p.heads() * p.n;
    Rows d_w;
    EACH_TEAM_ROW(p, team, q, far) {
        d_w.at[q] = at.d_weighting[part + team.lane + far];
    }
    real key_square = COSINE_EPSILON;
    if (head < p.reads) {
        read_backward_rows(p, team, memory, at.d_reads + (s * p.reads + head) * p.m,
                           at.d_shown + s * (p.shown() - 1) + p.h + head * p.m, values, d_w, key_square);
    } else {
        write_backward_rows(p, team, memory, at.d_memory + s * p.cells(), head, emitted, weightings, d_w, key_square);
    }
    const Staged staged = {at.similarity + part, at.content + part, at.shifted + part, at.inverse_norm + s * p.n,
                           at.weighting(p, t - 1) + part, at.weighting(p, t) + part};
    const real through = address_backward(p, team, values, staged, d_w, inverse_root(key_square), b.scale, b.floor,
                                          at.d_weighting + part, at.d + p.head_at(head) * p.together + s);
    if (team.lane == 0) {
        at.through_norm[s * p.heads() + head] = through;
    }
}

// A few columns of one sequence's memory in step t: the writes in reverse head order, what the keys were compared with, and
// what was read.
DEVICE void columns_backward(const Sizes &p, const Buffers &b, const Backward &at, int s, int begin, const Columns &columns, int t) {
    const int all = p.heads() * p.n;
    const real *all_emitted = at.emitted + s * p.emitted(), *emitted = all_emitted + begin;
    const int first = s * all + LANE;
    const real *weightings = at.weighting(p, t) + first, *d_dots = at.content + first, *row_factor = at.similarity + first;
    real *d_memory = at.d_memory + s * p.cells() + begin * p.n;
    real *d = at.d + begin * p.together + s;
    Rows cells[MOST_COLUMNS_BACK], d_cells[MOST_COLUMNS_BACK];
    load(p, columns, begin, found(p, b, at, s, t) + begin * p.n, cells);
    load(p, columns, begin, d_memory, d_cells);
    // Eq. 3, 4: d_e = -sum_i w(i) d_M'_i M_i, d_a = sum_i w(i) d_M'_i, d_M_i = d_M'_i (1 - w(i) e), M as the head found it
#pragma unroll 2
    for (int head = p.heads() - 1; head >= p.reads; head--) {
        const real *values = emitted + p.head_at(head);
        real sums[2 * MOST_COLUMNS_BACK] = {0}; // erase, then add
        EACH_COLUMN(p, columns, begin, c) {
            Rows found = cells[c];
            write_rows(p, Warp(), head, all_emitted, weightings, begin + c, found);
            EACH_ROW(p, q, far) {
                const real d_written = weightings[head * p.n + far] * d_cells[c].at[q];
                sums[c] -= d_written * found.at[q];
                sums[MOST_COLUMNS_BACK + c] += d_written;
                d_cells[c].at[q] -= values[p.erase() + c] * d_written;
            }
        }
        warp_sums(sums, [&](int k, real sum) {
            const int c = k % MOST_COLUMNS_BACK, place = k < MOST_COLUMNS_BACK ? p.erase() : p.add();
            if (columns.has(p, begin, c)) {
                d[(p.head_at(head) + place + c) * p.together] = sum;
            }
        });
    }
    // Eq. 6: d_k += sum_i d_(k . M_i) M_i; d_M_i += sum_heads d_(k . M_i) k + row_factor(i) M_i
#pragma unroll 2
    for (int head = 0; head < p.heads(); head++) {
        const real *keys = emitted + p.head_at(head);
        real d_key[MOST_COLUMNS_BACK] = {0};
        EACH_ROW(p, q, far) {
            const real d_dot = d_dots[head * p.n + far], factor = row_factor[head * p.n + far];
            EACH_COLUMN(p, columns, begin, c) {
                d_key[c] += d_dot * cells[c].at[q];
                d_cells[c].at[q] += d_dot * keys[c];
                d_cells[c].at[q] += factor * cells[c].at[q];
            }
        }
        const real through_norm = at.through_norm[s * p.heads() + head];
        warp_sums(d_key, [&](int c, real sum) {
            if (columns.has(p, begin, c)) {
                d[(p.head_at(head) + c) * p.together] = sum + through_norm * keys[c];
            }
        });
    }
    // Eq. 2: d_M_i += sum_reads w(i) d_r
    for (int head = 0; head < p.reads; head++) {
        const real *d_read = at.d_reads + (s * p.reads + head) * p.m + begin;
        const real *d_shown = at.d_shown + s * (p.shown() - 1) + p.h + head * p.m + begin;
        real d[MOST_COLUMNS_BACK];
        EACH_COLUMN(p, columns, begin, c) {
            d[c] = d_read[c] + d_shown[c];
        }
        EACH_ROW(p, q, far) {
            const real w = weightings[head * p.n + far];
            EACH_COLUMN(p, columns, begin, c) {
                d_cells[c].at[q] += w * d[c];
            }
        }
    }
    store(p, columns, begin, d_memory, d_cells);
}

// All heads in one step, backwards: by rows, by columns, then through the activations of what they emit.
DEVICE void memory_backward(const Sizes &p, const Buffers &b, const Backward &at, int t) {
    Team team(p, at.scratch);
    for (int e = team.number; e < p.together * p.heads(); e += team.teams) {
        if (at.all.active(e / p.heads(), t)) {
            head_backward(p, b, at, team, e / p.heads(), e % p.heads(), t);
        }
    }
    __syncthreads();
    const Columns columns(p, MOST_COLUMNS_BACK);
    for (int s = columns.first; s < p.together; s += columns.apart) {
        for (int begin = columns.begin(); at.all.active(s, t) && begin < p.m; begin += columns.step()) {
            columns_backward(p, b, at, s, begin, columns, t);
        }
    }
    __syncthreads();
    for (int e = THREAD; e < p.together * p.emitted(); e += THREADS) {
        const int s = e / p.emitted(), element = e % p.emitted();
        if (at.all.active(s, t)) {
            real *d = at.d + element * p.together + s;
            *d = activate_backward(p, place_in_head(p, element), at.emitted[e], *d);
            b.heads[at.all.row(s, t) * p.emitted() + element] = *d;
        }
    }
    __syncthreads();
}

// All layers of the controller in step t, backwards.
DEVICE void controller_backward(const Sizes &p, const Buffers &b, const Backward &at, const Held &held, int t) {
    // h goes up to the output and the heads, heads = W [1, h]: d_h += W^T d_heads
    Sums from_heads = {at.partial, 0, 0, 0};
    if (p.n > 0) {
        from_heads = product(p, matrix_of(p, b, at.resident, p.layers, BACKWARD), held, 0, at.d, at.partial);
    }
#pragma unroll
    for (int l = p.layers - 1; l >= 0; l--) {
        for (int e = THREAD; e < p.together * p.h; e += THREADS) {
            const int s = e / p.h, j = e % p.h;
            real *d_gates = at.d_gates + s;
            if (!at.all.active(s, t)) {
                for (int gate = 0; gate < p.outputs(); gate += p.h) {
                    d_gates[(gate + j) * p.together] = 0;
                }
                continue;
            }
            const int place = (s * p.layers + l) * p.h + j;
            const real *gates = at.gates + (s * p.layers + l) * p.outputs();
            real *saved = b.gates + (at.all.row(s, t) * p.layers + l) * p.outputs(), d_h;
            if (l + 1 < p.layers) {
                d_h = at.d_above[e];
            } else {
                d_h = at.d_shown[s * (p.shown() - 1) + j] + (p.n > 0 ? from_heads.total(s, 1 + j) : 0);
            }
            if (p.recurrent) {
                d_h += at.d_hidden[place]; // and on in time
                lstm_backward(p, j, gates, at.prev_cell[place], at.tanh_cell[place], d_h, at.d_cell + place, d_gates, saved);
            } else {
                feedforward_backward(p, j, gates[j], d_h, d_gates, saved);
            }
        }
        __syncthreads();
        if (l == 0 && t > 1) {
            stage_controller(p, b, at, t - 1);
        }
        const Matrix w = matrix_of(p, b, at.resident, l, BACKWARD);
        const Sums d_z = product(p, w, held, l == 0 ? held_rows(p, w) : 0, at.d_gates, at.partial);
        const int inputs = p.inputs(l) - 1;
        for (int e = THREAD; e < p.together * inputs; e += THREADS) {
            const int s = e / inputs, j = e % inputs;
            const real value = d_z.total(s, 1 + j);
            if (j >= p.below(l)) {
                at.d_hidden[(s * p.layers + l) * p.h + j - p.below(l)] = value;
            } else if (l > 0) {
                at.d_above[s * p.h + j] = value; // to the layer below
            } else if (j >= p.x) {
                at.d_reads[s * p.reads * p.m + j - p.x] = value; // the output has its part, too, in `d_shown`
            }
        }
        if (l == 0) {
            arrived();
        }
        __syncthreads();
    }
}

KERNEL ntm_backward(const Sizes given, const Buffers b) {
    SIZES(given);
    extern __shared__ Four shared_memory[];
    Shared shared = {(real *)shared_memory};
    Backward at;
    const int S = p.together, all = S * p.heads() * p.n, reads = p.reads * p.m, hidden = p.layers * p.h;
    at.all = sequences(p, b, shared);
    at.scratch = shared.take(Team::size(true));
    at.d_weighting = shared.take(all);
    at.d_reads = shared.take(S * reads);
    at.d_hidden = shared.take(S * hidden);
    at.d_cell = shared.take(S * hidden);
    at.d = shared.take(S * p.emitted());
    at.d_gates = shared.take(S * p.outputs());
    at.d_above = shared.take(S * p.h);
    at.through_norm = shared.take(S * p.heads());
    at.emitted = shared.take(S * p.emitted());
    at.similarity = shared.take(all);
    at.content = shared.take(all);
    at.shifted = shared.take(all);
    at.weightings = shared.take(2 * all);
    at.inverse_norm = shared.take(S * p.n);
    at.gates = shared.take(S * p.layers * p.outputs());
    at.prev_cell = shared.take(S * hidden);
    at.tanh_cell = shared.take(S * hidden);
    at.d_shown = shared.take(S * (p.shown() - 1));
    const int inputs = p.layers > 1 && p.inputs(1) > p.inputs(0) ? p.inputs(1) : p.inputs(0);
    at.partial = shared.take(partial_size(p, inputs > 1 + p.h ? inputs : 1 + p.h));
    at.d_memory = p.memories[BACKWARD] > 0 ? shared.take(S * p.cells()) : b.spare + (long long)blockIdx.x * S * p.cells();
    at.memory = p.memories[BACKWARD] > 1 ? shared.take(S * p.cells()) : nullptr;
    at.resident = shared.take(p.room[BACKWARD]);

    load_resident(p, b, at.resident, BACKWARD);
    const int longest = at.all.longest(p);
    stage_controller(p, b, at, longest);
    if (p.n > 0) {
        stage_heads(p, b, at, longest);
    }
    clear(at.d_weighting, all);
    clear(at.d_memory, S * p.cells());
    clear(at.d_hidden, S * hidden);
    clear(at.d_cell, S * hidden);
    clear(at.d_reads, S * reads);
    const Held held = hold(p, matrix_of(p, b, at.resident, 0, BACKWARD));
    arrived();
    __syncthreads();
    for (int t = longest; t >= 1; t--) {
        if (p.n > 0) {
            memory_backward(p, b, at, t);
            if (t > 1) {
                stage_heads(p, b, at, t - 1);
            }
        }
        controller_backward(p, b, at, held, t);
    }

    // what is left are the gradients of the first state
    for (int s = 0; s < S && (int)blockIdx.x * S + s < b.sequences; s++) {
        real *d_start = b.d_start + (long long)at.all.numbers[s] * p.start();
        if (p.recurrent) {
            copy(d_start, at.d_hidden + s * hidden, hidden);
            copy(d_start + hidden, at.d_cell + s * hidden, hidden);
            d_start += 2 * hidden;
        }
        copy(d_start, at.d_reads + s * reads, reads);
        copy(d_start + reads, at.d_weighting + s * p.heads() * p.n, p.heads() * p.n);
        copy(d_start + reads + p.heads() * p.n, at.d_memory + s * p.cells(), p.cells());
    }
}
