// The machine on a CUDA card: one block of threads runs one sequence, all its steps, in one launch forward and one back.
// `derivation.md` derives the lines; sections, names and equation strings are those of `../cpu/`. The files of this folder
// are one source in the order of `mod.rs`. Every sum has one fixed order and there are no atomics, so a launch repeats
// bit for bit.
//
// Threads of a block work together in three ways, between barriers:
//   elements  each thread its elements of a vector, THREADS apart
//   rows      each thread its rows i of the memory: sums over the M columns, in a loop
//   columns   each warp its columns m of the memory, or its heads: sums over the N rows, across the lanes of the warp
// Memories are stored (M, N), so that neighbouring threads touch neighbouring rows.

#ifndef REAL
#define REAL float
#endif
#ifndef LANES
#define LANES 32 // threads of a warp
#endif
typedef REAL real;

#define DEVICE static __device__ __forceinline__
#define METHOD __device__ __forceinline__
// Up to 512 threads, two such blocks or four of 256 on a multiprocessor: 64 registers a thread.
#define KERNEL extern "C" __global__ void __launch_bounds__(512, 2)
#define THREAD ((int)threadIdx.x)
#define THREADS ((int)blockDim.x)
#define LANE (THREAD % LANES)
#define WARP (THREAD / LANES)
#define WARPS (THREADS / LANES)

#define COSINE_EPSILON real(1e-6)
#define SHARPEN_EPSILON real(1e-16)

DEVICE int padded(int size) {
    return (size + 3) / 4 * 4;
}

// The sizes of a machine by their letters (`model/mod.rs` has the legend). The LSTM baseline has n = m = reads = writes = 0.
struct Sizes {
    int x, n, m, h, s;
    int reads, writes, layers;
    int recurrent; // LSTM layers, as opposed to feed-forward ones
    int key_tanh, add_tanh;

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
    // Packed weights: layer by layer, then the heads, each W^T (K, J) and then W (J, K), rows padded.
    METHOD int packed(int inputs, int outputs) const { return inputs * padded(outputs) + outputs * padded(inputs); }
    METHOD long long layer_at(int layer) const {
        return layer == 0 ? 0 : packed(inputs(0), outputs()) + (layer - 1) * (long long)packed(inputs(1), outputs());
    }
    // The first state: hidden (L, H), cell (L, H), read (R, M), weighting (R + W, N), memory (M, N).
    METHOD int start() const { return (recurrent ? 2 * layers * h : 0) + reads * m + heads() * n + cells(); }
};

// All that a launch reads and writes. A field (rows, ..) has one row a sequence and step: row first_row[b] + t - 1.
struct Buffers {
    const real *theta, *packed;
    const int *pack_first, *pack_second; // where each packed weight lies in theta; -1 for nothing, and for no second
    // the first state, and the batch
    const real *hidden, *cell, *read, *memory, *weighting;
    const real *inputs; // (rows, X)
    const int *lengths, *first_row, *first_snapshot; // (B)
    // the tape: what the forward pass leaves, after all activations; gates and heads hold the gradients before them later
    real *z, *gates, *cells, *tanh_cells;
    real *shown, *heads;
    real *similarity, *content, *shifted, *weightings; // (rows, R + W, N)
    real *inverse_norms; // (rows, N)
    real *snapshots; // M_0, M_segment, M_2segment, ... of each sequence (M, N)
    // backward
    const real *d_shown; // what the output layer passes back, without the column of ones (rows, H + R M)
    real *replayed; // memories of a segment after its first, by sequence (segment - 1, M, N)
    real *spare; // memories that have no room in shared memory, by sequence (max(W, 1), M, N)
    real *d_start; // gradients of the first state, by sequence (B, start())
    int pack_count;
    int segment; // steps between two snapshots
    int keep; // whether there is a tape; else `shown` alone is written
    int in_shared; // whether memories are in shared memory
};

// The sizes are constants of the compiler where they are given to it, for a card.
#ifdef NTM_SIZES
#define SIZES(given) constexpr Sizes p = {NTM_SIZES}
#else
#define SIZES(given) const Sizes p = given
#endif

// Sum, or the largest, of one value of each lane, for all lanes.
DEVICE real warp_sum(real value) {
    for (int apart = LANES / 2; apart > 0; apart /= 2) {
        value += __shfl_xor_sync(0xffffffff, value, apart);
    }
    return value;
}

DEVICE real larger(real a, real b) {
    return a > b ? a : b;
}

DEVICE real warp_largest(real value) {
    for (int apart = LANES / 2; apart > 0; apart /= 2) {
        value = larger(value, __shfl_xor_sync(0xffffffff, value, apart));
    }
    return value;
}

DEVICE real sigmoid(real x) {
    return real(1) / (real(1) + exp(-x));
}

DEVICE real softplus(real x) {
    return larger(x, real(0)) + log1p(exp(-fabs(x)));
}

// Cuts a block's shared memory into vectors.
struct Shared {
    real *next;
    METHOD real *take(int size) {
        real *vector = next;
        next += padded(size);
        return vector;
    }
};

// d <- values, element by element
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
