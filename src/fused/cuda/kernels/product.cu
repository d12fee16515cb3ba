// Products of weights and vectors. Bias is the first column of W, since every z begins with a 1.

struct alignas(4 * sizeof(real)) Four {
    real at[4];
};

// What `product` leaves: partial sums over ranges of the inputs, (parts, step).
struct Sums {
    const real *partial;
    int parts, step;
    METHOD real total(int output) const {
        real sum = partial[output];
        for (int part = 1; part < parts; part++) {
            sum += partial[part * step + output];
        }
        return sum;
    }
};

// The most values that `product` needs for its partial sums.
DEVICE int partial_size(int outputs) {
    return padded(outputs) > 4 * THREADS ? padded(outputs) : 4 * THREADS;
}

// out(o) = sum_i weights(i, o) in(i), weights (inputs, padded(outputs)). A thread takes four neighbouring outputs, 16 bytes a
// load, and a range of the inputs, so that all threads have work however few the outputs are.
DEVICE Sums product(const real *weights, const real *in, int inputs, int outputs, real *partial) {
    const int step = padded(outputs), groups = step / 4;
    const int parts = groups < THREADS ? (THREADS / groups < inputs ? THREADS / groups : inputs) : 1;
    const int share = (inputs + parts - 1) / parts;
    for (int e = THREAD; e < parts * groups; e += THREADS) {
        const int part = e / groups, group = e % groups;
        const int end = (part + 1) * share < inputs ? (part + 1) * share : inputs;
        Four sum = {{0, 0, 0, 0}};
#pragma unroll 8
        for (int i = part * share; i < end; i++) {
            const Four w = *(const Four *)(weights + (long long)i * step + 4 * group);
            const real value = in[i];
            sum.at[0] += w.at[0] * value;
            sum.at[1] += w.at[1] * value;
            sum.at[2] += w.at[2] * value;
            sum.at[3] += w.at[3] * value;
        }
        *(Four *)(partial + part * step + 4 * group) = sum;
    }
    __syncthreads();
    return Sums{partial, parts, step};
}

// Weights as the products take them, from theta: LSTM's two biases add up, padding is 0. Every thread of every block its own.
KERNEL ntm_pack(const Sizes, const Buffers b) {
    real *packed = (real *)b.packed;
    for (int e = blockIdx.x * THREADS + THREAD; e < b.pack_count; e += gridDim.x * THREADS) {
        const int first = b.pack_first[e], second = b.pack_second[e];
        packed[e] = first < 0 ? real(0) : second < 0 ? b.theta[first] : b.theta[first] + b.theta[second];
    }
}
