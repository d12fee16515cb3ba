// The machine on a CUDA card: one block of threads runs one sequence or a few, all their steps, in one launch forward and one
// back. `derivation.md` derives the lines; sections, names and equation strings are those of `../cpu/`. The files of this
// folder are one source in the order of `../kernels.rs`. Every sum has one fixed order and there are no atomics, so a launch repeats
// bit for bit.
//
// Threads of a block work together in four ways, between barriers:
//   products  all threads on all sequences of the block: each weight is loaded once for all of them
//   elements  each thread its elements of a vector, THREADS apart
//   rows      a team of warps a head of a sequence, its lanes over the rows i of the memory, which they keep in registers
//   columns   a warp a few columns m of a sequence's memory: sums over the N rows, across its lanes
// Memories are stored (M, N), so that neighbouring lanes touch neighbouring rows. Vectors that go into products are stored
// (elements, G): next to each other is what the G sequences of the block have in one place.

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
#ifndef MOST_ROWS
#define MOST_ROWS 128
#endif
#endif
#define THREAD ((int)threadIdx.x)
#define LANE (THREAD % LANES)
#define WARP (THREAD / LANES)
#define WARPS (THREADS / LANES)
#define MOST_COLUMNS (MOST_ROWS <= 4 ? 4 : MOST_ROWS <= 8 ? 2 : 1) // that a warp works on at once
#define MOST_COLUMNS_BACK (MOST_ROWS <= 8 ? 2 : 1) // backward, where each takes twice the registers
#define MOST_HELD 10 // rows of a matrix that a thread keeps four weights each of, in registers

#ifndef TEAM_BARRIER // barrier 0 is that of the block
#define TEAM_BARRIER(team, threads) asm volatile("bar.sync %0, %1;" ::"r"(1 + (team)), "r"(threads) : "memory")
#endif

#ifndef MOST_TEAM
#define MOST_TEAM 8 // warps of a team
#endif

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
    int together;        // sequences of a block, G: 1, 2, 4 or 8
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
    const real *inputs, *targets; // (T, B, X), (T, B, Y)
    const real *loss_weights; // what an output weighs in the loss, 0 where it does not count (T, B)
    const int *lengths, *first_row, *first_snapshot, *order; // (B)
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
    float scale, floor; // of every head's blurred shift, scale s + floor: 1 - blur, blur / S
};

DEVICE real sigmoid(real x) {
    return real(1) / (real(1) + exp(-x));
}
