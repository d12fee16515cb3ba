// Clip and optimizer: the equations of `optim/rule.rs`, in two launches, the norm's partial sums first. Every block of the second
// one adds them up in the same order.

struct Update {
    real *theta, *states[3];
    const real *gradient, *logits;
    real *partial; // (2, NORM_BLOCKS): squares of the gradient; 0, or not a number where a logit is not finite
    real *broken;  // (2): 0, or not a number from the first gradient or logit on that is not finite; in turns
    real *told;    // the norm before the clip, or not a number
    long long logit_count;
    int size, turn;
    int adam;       // else RMSProp with centring and momentum
    int clip;       // 0: none, 1: the norm, 2: each value, at `at`
    float at, rate; // of learning, for Adam with its correction of the mean
    float keep_mean, keep_square, momentum, epsilon, unbias_square; // `keep`: what an average keeps of itself
    float new_mean, new_square;                                     // 1 - keep
};

// Sum of one value of each thread, for thread 0. `scratch` has room for a value of each warp.
DEVICE real block_sum(real value, real *scratch) {
    value = warp_sum(value);
    if (LANE == 0) {
        scratch[WARP] = value;
    }
    __syncthreads();
    real sum = 0;
    for (int warp = 0; THREAD == 0 && warp < (int)blockDim.x / LANES; warp++) {
        sum += scratch[warp];
    }
    return sum;
}

KERNEL ntm_norm(const Update u) {
    extern __shared__ Four shared_memory[];
    real *scratch = (real *)shared_memory;
    const int first = blockIdx.x * blockDim.x + threadIdx.x, apart = gridDim.x * blockDim.x;
    real square = 0, broken = 0;
    for (int e = first; e < u.size; e += apart) {
        square += u.gradient[e] * u.gradient[e];
    }
    for (long long e = first; e < u.logit_count; e += apart) {
        broken += u.logits[e] * 0;
    }
    square = block_sum(square, scratch);
    broken = block_sum(broken, scratch + blockDim.x / LANES);
    if (THREAD == 0) {
        u.partial[blockIdx.x] = square;
        u.partial[NORM_BLOCKS + blockIdx.x] = broken;
    }
}

KERNEL ntm_update(const Update u) {
    extern __shared__ Four shared_memory[];
    real *shared = (real *)shared_memory;
    if (THREAD == 0) {
        real square = 0, broken = 0;
#pragma unroll 16
        for (int block = 0; block < NORM_BLOCKS; block++) {
            square += u.partial[block];
            broken += u.partial[NORM_BLOCKS + block];
        }
        const real norm = sqrt(square);
        shared[0] = norm;
        shared[1] = (norm + broken) * 0 + u.broken[u.turn];
        if (blockIdx.x == 0) {
            u.broken[1 - u.turn] = shared[1];
            *u.told = norm + shared[1];
        }
    }
    __syncthreads();
    const int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= u.size || !(shared[1] == 0)) {
        return; // nothing is updated any more
    }
    real g = u.gradient[e];
    if (u.clip == 1 && shared[0] > u.at) {
        g *= u.at / shared[0];
    } else if (u.clip == 2) {
        g = g < -u.at ? -u.at : g > u.at ? real(u.at) : g;
    }
    if (u.adam) {
        const real mean = u.keep_mean * u.states[0][e] + u.new_mean * g, square = u.keep_square * u.states[1][e] + u.new_square * g * g;
        u.states[0][e] = mean;
        u.states[1][e] = square;
        u.theta[e] -= u.rate * mean / (sqrt(square * u.unbias_square) + u.epsilon);
    } else {
        const real square = u.keep_square * u.states[0][e] + u.new_square * g * g, mean = u.keep_mean * u.states[1][e] + u.new_mean * g;
        const real deviation = sqrt(larger(square - mean * mean, real(0)) + u.epsilon); // rounding can pass below 0
        const real delta = u.momentum * u.states[2][e] - u.rate * g / deviation;
        u.states[0][e] = square;
        u.states[1][e] = mean;
        u.states[2][e] = delta;
        u.theta[e] += delta;
    }
}
