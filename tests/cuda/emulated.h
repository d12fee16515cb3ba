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
struct Copy {
    REAL *to;
    const REAL *from;
};
enum State { READY, AT_BARRIER, AT_SHUFFLE, AT_TEAM, DONE };
struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    State state;
    int site;           // the barrier it waits at
    int first, size;    // the threads that it waits with
    REAL shuffled[2];   // what it gives to its warp, in turns
    unsigned shuffles;
    std::vector<Copy> copies; // that have not arrived
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

// A barrier of the threads `team * size` and on, `size` of them.
static void team_barrier(int site, int team, int size) {
    barriers_seen |= 1ull << site;
    if (site != skipped) {
        fibers[current].first = team * size;
        fibers[current].size = size;
        wait(AT_TEAM);
    }
}

static REAL shuffle_xor(REAL value, int apart) {
    const int me = current;
    const unsigned turn = fibers[me].shuffles++ % 2;
    fibers[me].shuffled[turn] = value;
    wait(AT_SHUFFLE);
    return fibers[me / lanes * lanes + ((me % lanes) ^ apart)].shuffled[turn];
}

// Now or when it has to be there, as drawn.
static void copy_later(REAL *to, const REAL *from) {
    if (draw(2)) {
        *to = *from;
    } else {
        fibers[current].copies.push_back({to, from});
    }
}

static void copies_arrived() {
    for (const Copy &copy : fibers[current].copies) {
        *copy.to = *copy.from;
    }
    fibers[current].copies.clear();
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
    for (int first = 0, size; first < threads; first += size) {
        size = fibers[first].state == AT_TEAM ? fibers[first].size : 1;
        bool all = fibers[first].state == AT_TEAM && fibers[first].first == first;
        for (int i = first; all && i < first + size; i++) {
            all = fibers[i].state == AT_TEAM && fibers[i].first == first;
        }
        for (int i = first; all && i < first + size; i++) {
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
#define COPY_LATER(to, from) emulated::copy_later(to, from)
#define CHECK_ALIGNED(values) \
    if ((uintptr_t)(values) % (4 * sizeof(REAL)) != 0) emulated::failure = "four values are copied from or to where four do not begin"
#define COPIES_ARRIVED() emulated::copies_arrived()
#define TEAM_BARRIER(team, threads) emulated::team_barrier(__COUNTER__, team, threads)
#define __shfl_xor_sync(mask, value, apart) emulated::shuffle_xor(value, apart)

// What `extern __shared__` in the kernels names.
#define SHARED_VALUES (1 << 17)
