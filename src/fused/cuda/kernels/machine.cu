// The machine on a CUDA card: one block of threads runs one sequence or a few, all their steps, in one launch forward and one
// back. `derivation.md` derives the lines; sections, names and equation strings are those of `../cpu/`. The files of this
// folder are one source in the order of `mod.rs`. Every sum has one fixed order and there are no atomics, so a launch repeats
// bit for bit.
//
// Threads of a block work together in four ways, between barriers:
//   products  all threads on all sequences of the block: each weight is loaded once for all of them
//   elements  each thread its elements of a vector, THREADS apart
//   rows      a team of warps a head of a sequence, its lanes over the rows i of the memory, which they keep in registers
//   columns   a warp a few columns m of a sequence's memory: sums over the N rows, across its lanes
// Memories are stored (M, N), so that neighbouring lanes touch neighbouring rows. Vectors that go into products are stored
// (elements, S): next to each other is what the S sequences of the block have in one place.

#ifndef REAL
#define REAL float
#endif
#ifndef LANES
#define LANES 32 // threads of a warp
#endif
typedef REAL real;

#define DEVICE static __device__ __forceinline__
#define METHOD __device__ __forceinline__
#ifdef NTM_SIZES // the sizes are constants of the compiler where they are given to it, for a card
#define SIZES(given) constexpr Sizes p = {NTM_SIZES}
#define THREADS NTM_THREADS
#define KERNEL extern "C" __global__ void __launch_bounds__(NTM_THREADS, NTM_BLOCKS)
#define MOST_ROWS (NTM_ROWS > 0 ? (NTM_ROWS + 31) / 32 : 1) // of a lane
#else
#define SIZES(given) const Sizes p = given
#define THREADS ((int)blockDim.x)
#define KERNEL extern "C" __global__ void
#define MOST_ROWS 128
#endif
#define THREAD ((int)threadIdx.x)
#define LANE (THREAD % LANES)
#define WARP (THREAD / LANES)
#define WARPS (THREADS / LANES)
#define MOST_COLUMNS (MOST_ROWS <= 4 ? 4 : MOST_ROWS <= 8 ? 2 : 1) // that a warp works on at once
#define MOST_HELD 10   // rows of a matrix that a thread keeps four weights each of, in registers

#ifndef TEAM_BARRIER // barrier 0 is that of the block
#define TEAM_BARRIER(team, threads) asm volatile("bar.sync %0, %1;" ::"r"(1 + (team)), "r"(threads) : "memory")
#endif

#ifndef MOST_TEAM
#define MOST_TEAM 8 // warps of a team
#endif

#define COSINE_EPSILON real(1e-6)
#define SHARPEN_EPSILON real(1e-16)

DEVICE int padded(int size) {
    return (size + 3) / 4 * 4;
}

DEVICE int least(int a, int b) {
    return a < b ? a : b;
}

DEVICE int over(int a, int b) { // rounded up
    return (a + b - 1) / b;
}

// The sizes of a machine by their letters (`model/mod.rs` has the legend), and how blocks run it. The LSTM baseline has
// n = m = reads = writes = 0.
struct Sizes {
    int x, n, m, h, s;
    int reads, writes, layers;
    int recurrent; // LSTM layers, as opposed to feed-forward ones
    int key_tanh, add_tanh;
    int threads, blocks; // threads of a block, and blocks that a multiprocessor shall run at once
    int together;        // sequences of a block, S: 1, 2, 4 or 8
    // forward, backward: how many of a sequence's memories are in shared memory, the first of them instead of in `spare`
    int memories[2];
    int room[2]; // forward, backward: values of shared memory for weights
    METHOD int heads() const { return reads + writes; }
    METHOD int cells() const { return m * n; }
    // Inputs and outputs of a controller layer's matrix; its input is z = [1, what comes from below, prev_h].
    METHOD int below(int layer) const { return layer == 0 ? x + reads * m : h; }
    METHOD int inputs(int layer) const { return 1 + below(layer) + (recurrent ? h : 0); }
    METHOD int outputs() const { return recurrent ? 4 * h : h; }
    // Where a layer's z starts in a row that holds those of all layers.
    METHOD int z_at(int layer) const { return layer == 0 ? 0 : inputs(0) + (layer - 1) * inputs(1); }
    // [1, h, r_1..R], what heads and output see
    METHOD int shown() const { return 1 + h + reads * m; }
    // What the heads emit, read heads first; each: key (M), strength, gate, shift (S), sharpening; write heads: erase, add (M)
    METHOD int addressing() const { return m + 3 + s; }
    METHOD int head_at(int head) const { return head * addressing() + (head > reads ? head - reads : 0) * 2 * m; }
    METHOD int emitted() const { return head_at(reads + writes); }
    METHOD int strength() const { return m; }
    METHOD int gate() const { return m + 1; }
    METHOD int shift() const { return m + 2; }
    METHOD int sharpening() const { return m + 2 + s; }
    METHOD int erase() const { return m + 3 + s; }
    METHOD int add() const { return 2 * m + 3 + s; }
    // The first state: hidden (L, H), cell (L, H), read (R, M), weighting (R + W, N), memory (M, N).
    METHOD int start() const { return (recurrent ? 2 * layers * h : 0) + reads * m + heads() * n + cells(); }
};

#define FORWARD 0
#define BACKWARD 1

// All that a launch reads and writes. A field (rows, ..) has one row a sequence and step: row first_row[b] + t - 1.
struct Buffers {
    const real *theta, *packed;
    const int *pack_first, *pack_second; // where each packed weight lies in theta; -1 for nothing, and for no second
    // the first state, and the batch
    const real *hidden, *cell, *read, *memory, *weighting;
    const real *inputs, *targets, *mask; // (T, B, X), (T, B, Y), (T, B)
    const real *scale; // what an output that counts weighs in the loss (B)
    const int *lengths, *first_row, *first_snapshot; // (B)
    // the tape: what the forward pass leaves, after all activations; gates and heads hold the gradients before them later
    real *z, *gates, *cells, *tanh_cells;
    real *shown, *heads;
    real *similarity, *content, *shifted, *weightings; // (rows, R + W, N)
    real *inverse_norms; // (rows, N)
    real *snapshots; // M_0, M_segment, M_2segment, ... of each sequence (M, N)
    // the output layer, which is outside of the kernels
    const real *logits; // (rows, Y)
    real *d_logits; // (rows, Y)
    real *placed; // the logits (T, B, Y)
    // backward
    const real *d_shown; // what the output layer passes back, without the column of ones (rows, H + R M)
    real *replayed; // memories of a segment after its first, by sequence (segment - 1, M, N)
    real *spare; // memories that have no room in shared memory, by sequence (M, N)
    real *d_start; // gradients of the first state, by sequence (B, start())
    int pack_count;
    int sequences; // B
    int segment; // steps between two snapshots
    int keep; // whether there is a tape; else `shown` alone is written
    int steps, outputs; // T, Y
    int squared; // the loss: squared errors instead of cross-entropy
};

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

DEVICE real sigmoid(real x) {
    return real(1) / (real(1) + exp(-x));
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

// The sequences of a block, in shared memory: steps (0 for none) and first row of each.
struct Sequences {
    int *steps, *first_row;
    METHOD static int size(const Sizes &p) { return 2 * p.together; }
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

// The number in the batch of a block's sequence; beyond the last one, the last one's.
DEVICE int number(const Sizes &p, const Buffers &b, int s) {
    return least(blockIdx.x * p.together + s, b.sequences - 1);
}

DEVICE Sequences sequences(const Sizes &p, const Buffers &b, Shared &shared) {
    Sequences all;
    all.steps = (int *)shared.take(p.together);
    all.first_row = (int *)shared.take(p.together);
    for (int s = THREAD; s < p.together; s += THREADS) {
        const bool exists = (int)blockIdx.x * p.together + s < b.sequences;
        all.steps[s] = exists ? b.lengths[number(p, b, s)] : 0;
        all.first_row[s] = b.first_row[number(p, b, s)];
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

// to (elements, S) <- from (elements), the same for all sequences
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
// head has several: then a few values in shared memory and a barrier of their own join them.
struct Team {
    int lane, lanes, number, teams;
    real *scratch; // 2 warps' values of two turns
    int turn;

    METHOD static int warps(const Sizes &p) {
        int warps = 1;
        while (2 * warps * p.together * p.heads() <= WARPS && warps * LANES < p.n && warps < MOST_TEAM) {
            warps *= 2;
        }
        return warps;
    }
    METHOD static int size() { return 2 * WARPS; }
    METHOD Team(const Sizes &p, real *all) {
        const int mine = warps(p);
        lanes = mine * LANES;
        lane = THREAD % lanes;
        number = THREAD / lanes;
        teams = WARPS / mine;
        scratch = all + number * mine;
        turn = 0;
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
            turn = 1 - turn; // some may still read those of the last turn
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
    METHOD real largest(real value) {
        return join(warp_largest(value), larger);
    }
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
};

// For each column c of a warp's, begin + c of the memory.
#define EACH_COLUMN(p, columns, begin, c) \
    _Pragma("unroll") for (int c = 0; c < MOST_COLUMNS; c++) if (c < columns.chunk && (begin) + c < p.m)
