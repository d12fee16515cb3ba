// How the threads of a block work together: sums over warps, shared memory, its sequences, copies ahead of their use, teams.

DEVICE real larger(real a, real b) {
    return a > b ? a : b;
}

// Sum, or the largest, of one value of each lane, for all lanes.
DEVICE real warp_sum(real value) {
#pragma unroll
    for (int apart = LANES / 2; apart > 0; apart /= 2) {
        value += __shfl_xor_sync(0xffffffff, value, apart);
    }
    return value;
}

DEVICE real warp_largest(real value) {
#pragma unroll
    for (int apart = LANES / 2; apart > 0; apart /= 2) {
        value = larger(value, __shfl_xor_sync(0xffffffff, value, apart));
    }
    return value;
}

// The sums of COUNT values of each lane, a power of two: lanes exchange what the other sums up, so that it takes few more
// shuffles than one sum. `give(k, sum)` is called for each value by one lane.
template <int COUNT, typename Give> DEVICE void warp_sums(real (&values)[COUNT], Give give) {
    if (LANES < COUNT) {
        for (int k = 0; k < COUNT; k++) {
            const real sum = warp_sum(values[k]);
            if (LANE == 0) {
                give(k, sum);
            }
        }
        return;
    }
    int apart = LANES / 2;
#pragma unroll
    for (int half = COUNT / 2; half > 0; half /= 2, apart /= 2) {
#pragma unroll
        for (int k = 0; k < half; k++) {
            const bool upper = LANE & apart;
            const real theirs = upper ? values[k] : values[k + half];
            values[k] = (upper ? values[k + half] : values[k]) + __shfl_xor_sync(0xffffffff, theirs, apart);
        }
    }
    real sum = values[0];
#pragma unroll
    for (; apart > 0; apart /= 2) {
        sum += __shfl_xor_sync(0xffffffff, sum, apart);
    }
    if (LANE % (LANES / COUNT) == 0) {
        give(LANE / (LANES / COUNT), sum);
    }
}

struct alignas(4 * sizeof(real)) Four {
    real at[4];
};

// Cuts a block's shared memory into vectors.
struct Shared {
    real *next;
    METHOD real *take(int size) {
        real *vector = next;
        next += padded(size);
        return vector;
    }
};

// The sequences of a block, in shared memory: steps (0 for none), first row and number in the batch of each. Those of a block,
// and of blocks that begin together, are about as long.
struct Sequences {
    int *steps, *first_row, *numbers;
    METHOD bool active(int s, int t) const { return t <= steps[s]; }
    METHOD long long row(int s, int t) const { return (long long)first_row[s] + t - 1; }
    METHOD int longest(const Sizes &p) const {
        int most = 0;
        for (int s = 0; s < p.together; s++) {
            most = steps[s] > most ? steps[s] : most;
        }
        return most;
    }
};

DEVICE Sequences sequences(const Sizes &p, const Buffers &b, Shared &shared) {
    Sequences all;
    all.steps = (int *)shared.take(p.together);
    all.first_row = (int *)shared.take(p.together);
    all.numbers = (int *)shared.take(p.together);
    for (int s = THREAD; s < p.together; s += THREADS) {
        const int place = blockIdx.x * p.together + s;
        const int number = b.order[least(place, b.sequences - 1)]; // beyond the last one, the last one's
        all.steps[s] = place < b.sequences ? b.lengths[number] : 0;
        all.first_row[s] = b.first_row[number];
        all.numbers[s] = number;
    }
    __syncthreads();
    return all;
}

// to <- from, element by element
DEVICE void copy(real *to, const real *from, int size) {
    for (int e = THREAD; e < size; e += THREADS) {
        to[e] = from[e];
    }
}

DEVICE void clear(real *values, int size) {
    for (int e = THREAD; e < size; e += THREADS) {
        values[e] = 0;
    }
}

// to (elements, G) <- from (elements), the same for all sequences
DEVICE void spread(const Sizes &p, real *to, const real *from, int size) {
    for (int e = THREAD; e < size * p.together; e += THREADS) {
        to[e] = from[e / p.together];
    }
}

// One value, or four on a boundary of four, from global memory to shared memory, without waiting: they are there after
// `arrived` and a barrier.
DEVICE void copy_one_ahead(real *to, const real *from) {
#if defined(COPY_LATER)
    COPY_LATER(to, from);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"((unsigned)__cvta_generic_to_shared(to)), "l"(from) : "memory");
#else
    *to = *from;
#endif
}

DEVICE void copy_four_ahead(real *to, const real *from) {
#if defined(COPY_LATER)
    CHECK_ALIGNED(to);
    CHECK_ALIGNED(from);
    for (int e = 0; e < 4; e++) {
        COPY_LATER(to + e, from + e);
    }
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((unsigned)__cvta_generic_to_shared(to)), "l"(from) : "memory");
#else
    *(Four *)to = *(const Four *)from;
#endif
}

// The thread that begins with the first values; in the emulation others than those that `copy` has.
DEVICE int first_copier() {
#ifdef COPY_LATER
    return THREADS - 1 - THREAD;
#else
    return THREAD;
#endif
}

DEVICE void copy_ahead(real *to, const real *from, int size) {
    if (size % 4 == 0) {
        for (int e = 4 * first_copier(); e < size; e += 4 * THREADS) {
            copy_four_ahead(to + e, from + e);
        }
    } else {
        for (int e = first_copier(); e < size; e += THREADS) {
            copy_one_ahead(to + e, from + e);
        }
    }
}

DEVICE void arrived() {
#if defined(COPY_LATER)
    COPIES_ARRIVED();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// The warps that work together on one head, its rows dealt out over their lanes. Where there are fewer heads than warps, a
// head has several: then a few values in shared memory and a barrier of their own join them. A block has 15 such barriers.
struct Team {
    int lane, lanes, number, teams;
    real *scratch;    // a value of each warp, of two turns: some may still read those of the last turn
    real *more;       // MOST_SUMS values of each warp, of two turns
    int turn, more_turn;

    METHOD static int warps(const Sizes &p) {
        int warps = 1;
        // unrolled, it is a constant to every compiler; one that left a loop spilt registers
#pragma unroll
        for (int more = 2; more <= MOST_TEAM; more *= 2) {
            if (WARPS < 31 && WARPS % more == 0 && more * p.together * p.heads() <= WARPS && more / 2 * LANES < p.n) {
                warps = more;
            }
        }
        return warps;
    }
    // The values of `all` that teams need, with `sums` or without.
    METHOD static int size(bool sums) { return padded(2 * WARPS) + (sums ? 2 * MOST_SUMS * WARPS : 0); }
    METHOD Team(const Sizes &p, real *all) {
        const int mine = warps(p);
        lanes = mine * LANES;
        lane = THREAD % lanes;
        number = THREAD / lanes;
        teams = WARPS / mine;
        scratch = all + number * mine;
        more = all + padded(2 * WARPS) + number * mine * MOST_SUMS;
        turn = more_turn = 0;
    }
    METHOD void sync() const {
        if (lanes > LANES) {
            TEAM_BARRIER(number, lanes);
        } else {
            __syncwarp();
        }
    }
    template <typename Join> METHOD real join(real value, Join join) {
        if (lanes > LANES) {
            real *values = scratch + turn * WARPS;
            turn = 1 - turn;
            if (LANE == 0) {
                values[lane / LANES] = value;
            }
            sync();
            value = values[0];
            for (int warp = 1; warp < lanes / LANES; warp++) {
                value = join(value, values[warp]);
            }
        }
        return value;
    }
    METHOD real sum(real value) {
        return join(warp_sum(value), [](real a, real b) { return a + b; });
    }
    // Sums of several values of each lane, to the bits of `sum`, by one barrier.
    METHOD void sums(real (&values)[MOST_SUMS]) {
        real *all = more + more_turn * MOST_SUMS * WARPS, *mine = all + lane / LANES * MOST_SUMS;
        more_turn = 1 - more_turn;
        warp_sums(values, [&](int k, real sum) { mine[k] = sum; });
        sync();
#pragma unroll
        for (int k = 0; k < MOST_SUMS; k++) {
            values[k] = all[k];
            for (int warp = 1; warp < lanes / LANES; warp++) {
                values[k] += all[warp * MOST_SUMS + k];
            }
        }
    }
    METHOD real largest(real value) {
        return join(warp_largest(value), larger);
    }
};

// A warp by itself, where others are a team.
struct Warp {
    int lane = LANE, lanes = LANES;
};

// How the warps of a block share out a sequence's columns: `teams` warps a sequence, a few columns at once.
struct Columns {
    int teams, first, apart, chunk; // first sequence and how far apart a warp's sequences are
    METHOD Columns(const Sizes &p, int most) {
        teams = WARPS >= p.together ? WARPS / p.together : 1;
        first = WARP / teams;
        apart = WARPS / teams;
        chunk = least(over(p.m, teams), most);
    }
    METHOD int begin() const { return WARP % teams * chunk; }
    METHOD int step() const { return teams * chunk; }
    // Whether there is a column begin + c, of the chunk that begins there; a constant to the compiler where chunks are whole.
    METHOD bool has(const Sizes &p, int begin, int c) const { return c < chunk && (p.m % chunk == 0 || begin + c < p.m); }
};

// For each column c of a warp's, begin + c of the memory.
#define EACH_COLUMN(p, columns, begin, c) \
    _Pragma("unroll") for (int c = 0; c < MOST_COLUMNS; c++) if (columns.has(p, begin, c))
