// CUDA's threads on a CPU, enough to run our kernels: the threads of a block are fibers that a scheduler runs one at a time,
// until its next barrier, in an order drawn from a seed for each stretch between barriers: one warp as far as it can go, then
// the next one. What two threads do between the same barriers so happens in either order over a few seeds: a missing barrier
// changes the result. A single thread runs as a plain call.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>
#include <vector>

#define __device__
#define __global__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(threads, blocks)

namespace emulated {
struct Index {
    unsigned x;
};
enum State { READY, AT_BARRIER, AT_SHUFFLE, DONE };
struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    State state;
    int site;           // the barrier it waits at
    REAL shuffled[2];   // what it gives to its warp, in turns
    unsigned shuffles;
};
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static int current, threads, lanes, skipped;
static unsigned long long barriers_seen; // one bit a site
static const char *failure;
static void (*body)();

static uint64_t random_state;
static unsigned draw(unsigned below) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random_state >> 33) % below;
}

static void wait(State state) {
    fibers[current].state = state;
    swapcontext(&fibers[current].context, &scheduler);
}

static void barrier(int site) {
    barriers_seen |= 1ull << site;
    if (threads > 1 && site != skipped) {
        fibers[current].site = site;
        wait(AT_BARRIER);
    }
}

static REAL shuffle_xor(REAL value, int apart) {
    const int me = current;
    const unsigned turn = fibers[me].shuffles++ % 2;
    fibers[me].shuffled[turn] = value;
    wait(AT_SHUFFLE);
    return fibers[me / lanes * lanes + ((me % lanes) ^ apart)].shuffled[turn];
}

static void enter() {
    body();
    wait(DONE);
}

static std::vector<int> order; // all threads, warp by warp

static void draw_order() {
    std::vector<int> warps;
    for (int warp = 0; warp < threads; warp += lanes) {
        warps.push_back(warp);
    }
    order.clear();
    while (!warps.empty()) {
        const size_t pick = draw(warps.size());
        const int turn = draw(lanes), direction = draw(2) ? 1 : lanes - 1;
        for (int i = 0; i < lanes; i++) {
            order.push_back(warps[pick] + (turn + i * direction) % lanes);
        }
        warps.erase(warps.begin() + pick);
    }
}

// The first thread of the order that can go on, or -1.
static int next_thread() {
    for (int thread : order) {
        if (fibers[thread].state == READY) {
            return thread;
        }
    }
    return -1;
}

// Lets threads go on that wait for nobody any more.
static void release() {
    for (int warp = 0; warp < threads; warp += lanes) {
        bool all = true;
        for (int i = warp; i < warp + lanes; i++) {
            all = all && fibers[i].state == AT_SHUFFLE;
        }
        for (int i = warp; all && i < warp + lanes; i++) {
            fibers[i].state = READY;
        }
    }
    for (int i = 0; i < threads; i++) {
        if (fibers[i].state != AT_BARRIER) {
            return;
        }
        if (fibers[i].site != fibers[0].site) {
            failure = "threads of one block wait at different barriers";
            return;
        }
    }
    for (int i = 0; i < threads; i++) {
        fibers[i].state = READY;
    }
    draw_order();
}
} // namespace emulated

static emulated::Index threadIdx, blockIdx, blockDim, gridDim;
#define LANES emulated::lanes
#define __syncthreads() emulated::barrier(__COUNTER__)
#define __syncwarp() (emulated::lanes > 1 ? (void)emulated::shuffle_xor(0, 0) : (void)0)
#define __shfl_xor_sync(mask, value, apart) emulated::shuffle_xor(value, apart)

// What `extern __shared__` in the kernels names.
#define SHARED_VALUES (1 << 17)
