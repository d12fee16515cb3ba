// The backward pass of one sequence: the sections of `forward.cu` in mirrored order. `derivation.md` derives each line.

// What a block keeps in shared memory. d_weighting, d_memory, d_reads, d_hidden, d_cell pass from step to step.
struct Backward {
    real *d_weighting, *d_memory;
    real *d_reads, *d_hidden, *d_cell;
    real *emitted, *d; // what the heads emit, and its gradient
    real *partial, *d_gates, *d_above;
    real *weighting, *gated, *d_dots, *row_factor; // (R + W, N)
    real *memory;  // M_{t-1} (M, N), where it is in shared memory
    real *between; // the memories between the write heads of one step (W - 1, M, N)
};

// M_{t-1} of step t of a sequence, which `replay` has filled in.
DEVICE real *memory_before(const Sizes &p, const Buffers &b, long long sequence, int t) {
    const int place = (t - 1) % b.segment, index = (t - 1) / b.segment;
    return place == 0 ? b.snapshots + (b.first_snapshot[sequence] + index) * (long long)p.cells()
                      : b.replayed + (sequence * (b.segment - 1) + place - 1) * p.cells();
}

// Fills `replayed` with the memories before the steps of the segment that step t is the last of, cell by cell.
DEVICE void replay(const Sizes &p, const Buffers &b, long long sequence, int t) {
    const int begin = (t - 1) / b.segment * b.segment + 1;
    const long long first = b.first_row[sequence];
    for (int e = THREAD; e < p.cells(); e += THREADS) {
        real value = memory_before(p, b, sequence, begin)[e];
        for (int step = begin; step < t; step++) {
            const long long row = first + step - 1;
            const real *emitted = b.heads + row * p.emitted(), *weightings = b.weightings + row * p.heads() * p.n;
            value = written_by(p, p.reads, p.heads(), emitted, weightings, e / p.n, e % p.n, value);
            memory_before(p, b, sequence, step + 1)[e] = value;
        }
    }
}

// All heads in one step, backwards: writes, reads, addressing, then what they leave for M_{t-1}.
DEVICE void memory_backward(const Sizes &p, const Buffers &b, const Backward &at, long long sequence, int t, long long row) {
    if (t == b.lengths[sequence] || t % b.segment == 0) {
        replay(p, b, sequence, t);
        if (!b.in_shared) {
            __syncthreads(); // else every thread goes on with the cells it has filled in
        }
    }
    const long long kept_row = row * p.heads() * p.n;
    const real *before = memory_before(p, b, sequence, t);
    const real *memory = b.in_shared ? at.memory : before;
    if (b.in_shared) {
        copy(at.memory, before, p.cells());
    }
    copy(at.emitted, b.heads + row * p.emitted(), p.emitted());
    copy(at.weighting, b.weightings + kept_row, p.heads() * p.n);
    // the gradients of reads: from the output, and from the controller's input at step t + 1
    for (int e = THREAD; e < p.reads * p.m; e += THREADS) {
        at.d_reads[e] += b.d_shown[row * (p.shown() - 1) + p.h + e];
    }
    __syncthreads();

    // Eq. 2: d_w(i) += d_r . M_i, for all read heads, by rows; the writes below touch other heads
    for (int e = THREAD; e < p.reads * p.n; e += THREADS) {
        const real *d_read = at.d_reads + e / p.n * p.m;
        real sum = at.d_weighting[e];
        for (int m = 0; m < p.m; m++) {
            sum += d_read[m] * memory[m * p.n + e % p.n];
        }
        at.d_weighting[e] = sum;
    }
    // Eq. 3, 4: the writes in reverse head order, each with the memory it found
    if (p.writes > 1) {
        for (int e = THREAD; e < p.cells(); e += THREADS) {
            real value = memory[e];
            for (int head = p.reads; head + 1 < p.heads(); head++) {
                value = written_by(p, head, head + 1, at.emitted, at.weighting, e / p.n, e % p.n, value);
                at.between[(head - p.reads) * p.cells() + e] = value;
            }
        }
        __syncthreads();
    }
    for (int head = p.heads() - 1; head >= p.reads; head--) {
        const real *found = head == p.reads ? memory : at.between + (head - p.reads - 1) * p.cells();
        const real *values = at.emitted + p.head_at(head);
        write_backward_rows(p, found, values, at.d_memory, at.d_weighting + head * p.n);
        __syncthreads();
        write_backward_columns(p, found, at.weighting + head * p.n, values, at.d_memory, at.d + p.head_at(head));
        __syncthreads();
    }
    const real *prev_weightings = t == 1 ? b.weighting : b.weightings + kept_row - p.heads() * p.n;
    for (int head = WARP; head < p.heads(); head += WARPS) {
        const int part = head * p.n;
        const long long kept = kept_row + part;
        address_backward(p, at.emitted + p.head_at(head), b.inverse_norms + row * p.n, prev_weightings + part,
                         Kept{b.similarity + kept, b.content + kept, b.shifted + kept, nullptr}, at.weighting + part, at.d_weighting + part,
                         at.gated + part, at.d_dots + part, at.row_factor + part, at.d + p.head_at(head));
    }
    __syncthreads();
    // k . M_i: d_k += sum_i d_(k . M_i) M_i, by columns
    for (int e = WARP; e < p.heads() * p.m; e += WARPS) {
        const int head = e / p.m, m = e % p.m;
        const real sum = column_sum(p, at.d_dots + head * p.n, memory + m * p.n);
        if (LANE == 0) {
            at.d[p.head_at(head) + m] += sum;
        }
    }
    // M_{t-1} from all sides: d_M_i += sum_heads d_(k . M_i) k + sum_reads w(i) d_r + row_factor(i) M_i
    for (int e = THREAD; e < p.cells(); e += THREADS) {
        const int m = e / p.n, i = e % p.n;
        real sum = at.d_memory[e], factor = 0;
        for (int head = 0; head < p.heads(); head++) {
            sum += at.d_dots[head * p.n + i] * at.emitted[p.head_at(head) + m];
            factor += at.row_factor[head * p.n + i];
        }
        for (int head = 0; head < p.reads; head++) {
            sum += at.weighting[head * p.n + i] * at.d_reads[head * p.m + m];
        }
        at.d_memory[e] = sum + factor * memory[e];
    }
    __syncthreads();
    for (int e = THREAD; e < p.emitted(); e += THREADS) {
        at.d[e] = activate_backward(p, place_in_head(p, e), at.emitted[e], at.d[e]);
        b.heads[row * p.emitted() + e] = at.d[e];
    }
    __syncthreads();
}

// All layers of the controller, backwards: from d_h to `d_reads` and the layers' carried gradients.
DEVICE void controller_backward(const Sizes &p, const Buffers &b, const Backward &at, int t, long long row) {
    // h goes up to the output and the heads, heads = W [1, h]: d_h += W^T d_heads
    Sums from_heads = {at.partial, 0, 0};
    if (p.n > 0) {
        const real *weights = b.packed + p.layer_at(p.layers) + (1 + p.h) * padded(p.emitted());
        from_heads = product(weights, at.d, p.emitted(), 1 + p.h, at.partial);
    }
    for (int l = p.layers - 1; l >= 0; l--) {
        const long long state = (row * p.layers + l) * p.h;
        real *gates = b.gates + (row * p.layers + l) * p.outputs();
        for (int j = THREAD; j < p.h; j += THREADS) {
            real d_h;
            if (l + 1 < p.layers) {
                d_h = at.d_above[j];
            } else {
                d_h = b.d_shown[row * (p.shown() - 1) + j] + (p.n > 0 ? from_heads.total(1 + j) : 0);
            }
            if (p.recurrent) {
                const real *prev_c = t == 1 ? b.cell + l * p.h : b.cells + state - p.layers * p.h;
                d_h += at.d_hidden[l * p.h + j]; // and on in time
                lstm_backward(p, j, gates, prev_c, b.tanh_cells + state, d_h, at.d_cell + l * p.h, at.d_gates);
            } else {
                feedforward_backward(j, gates, d_h, at.d_gates);
            }
        }
        __syncthreads();
        const real *weights = b.packed + p.layer_at(l) + p.inputs(l) * padded(p.outputs());
        const Sums d_z = product(weights, at.d_gates, p.outputs(), p.inputs(l), at.partial);
        for (int j = THREAD; j < p.below(l); j += THREADS) {
            if (l > 0) {
                at.d_above[j] = d_z.total(1 + j); // to the layer below
            } else if (j >= p.x) {
                at.d_reads[j - p.x] = d_z.total(1 + j);
            }
        }
        for (int j = THREAD; p.recurrent && j < p.h; j += THREADS) {
            at.d_hidden[l * p.h + j] = d_z.total(1 + p.below(l) + j);
        }
        __syncthreads();
    }
}

KERNEL ntm_backward(const Sizes given, const Buffers b) {
    SIZES(given);
    extern __shared__ Four shared_memory[];
    Shared shared = {(real *)shared_memory};
    Backward at;
    at.d_weighting = shared.take(p.heads() * p.n);
    at.d_reads = shared.take(p.reads * p.m);
    at.d_hidden = shared.take(p.layers * p.h);
    at.d_cell = shared.take(p.layers * p.h);
    at.emitted = shared.take(p.emitted());
    at.d = shared.take(p.emitted());
    at.d_gates = shared.take(p.outputs());
    at.d_above = shared.take(p.h);
    at.weighting = shared.take(p.heads() * p.n);
    at.gated = shared.take(p.heads() * p.n);
    at.d_dots = shared.take(p.heads() * p.n);
    at.row_factor = shared.take(p.heads() * p.n);
    const long long sequence = blockIdx.x;
    const int kept = 1 + (p.writes > 1 ? p.writes : 1); // d_memory, those between the writes, the one before them
    real *memories = b.in_shared ? shared.take(kept * p.cells()) : b.spare + sequence * (p.writes > 1 ? p.writes : 1) * p.cells();
    at.d_memory = memories;
    at.between = memories + p.cells();
    at.memory = at.between + (p.writes > 1 ? p.writes - 1 : 0) * p.cells();
    const int inputs = p.layers > 1 && p.inputs(1) > p.inputs(0) ? p.inputs(1) : p.inputs(0);
    at.partial = shared.take(partial_size(inputs > 1 + p.h ? inputs : 1 + p.h));

    clear(at.d_weighting, p.heads() * p.n);
    clear(at.d_memory, p.cells());
    clear(at.d_reads, p.reads * p.m);
    clear(at.d_hidden, p.layers * p.h);
    clear(at.d_cell, p.layers * p.h);
    __syncthreads();
    for (int t = b.lengths[sequence]; t >= 1; t--) {
        const long long row = b.first_row[sequence] + t - 1;
        if (p.n > 0) {
            memory_backward(p, b, at, sequence, t, row);
        }
        controller_backward(p, b, at, t, row);
    }

    // what is left are the gradients of the first state
    real *d_start = b.d_start + sequence * p.start();
    if (p.recurrent) {
        copy(d_start, at.d_hidden, p.layers * p.h);
        copy(d_start + p.layers * p.h, at.d_cell, p.layers * p.h);
        d_start += 2 * p.layers * p.h;
    }
    copy(d_start, at.d_reads, p.reads * p.m);
    copy(d_start + p.reads * p.m, at.d_weighting, p.heads() * p.n);
    copy(d_start + p.reads * p.m + p.heads() * p.n, at.d_memory, p.cells());
}
