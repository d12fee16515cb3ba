// The kernels as a library for the tests: REAL is float or double, KERNELS the file that holds their source.
#include "emulated.h"
#include KERNELS

Four shared_memory[SHARED_VALUES / 4];
static REAL *const shared_values = (REAL *)shared_memory;

static Sizes sizes;
static Buffers buffers;
static void pack() { ntm_pack(sizes, buffers); }
static void forward() { ntm_forward(sizes, buffers); }
static void loss() { ntm_loss(sizes, buffers); }
static void backward() { ntm_backward(sizes, buffers); }
static Update update_;
static void norm() { ntm_norm(update_); }
static void update() { ntm_update(update_); }

static void run_block() {
    using namespace emulated;
    for (Fiber &fiber : fibers) {
        fiber.copies.clear();
    }
    if (threads == 1) {
        current = 0;
        threadIdx.x = 0;
        body();
        return;
    }
    for (int i = 0; i < threads; i++) {
        Fiber &fiber = fibers[i];
        fiber.stack.resize(1 << 16);
        fiber.state = READY;
        fiber.shuffles = 0;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        makecontext(&fiber.context, enter, 0);
    }
    draw_order();
    while (!failure) {
        current = next_thread();
        if (current < 0) {
            for (int i = 0; i < threads; i++) {
                if (fibers[i].state != DONE) {
                    failure = "some threads of a block wait for others that have ended or wait elsewhere";
                }
            }
            return;
        }
        threadIdx.x = current;
        swapcontext(&scheduler, &fibers[current].context);
        release();
    }
}

// Runs a kernel, in the order of `Kernel::ALL`. `shared` bytes of shared memory are filled with NaN for each block, and a
// write beyond them is an error. `skip` is a barrier to leave out, or -1. Returns null, or what went wrong.
extern "C" const char *emulated_launch(int kernel, const Sizes *s, const Buffers *b, const Update *u, int grid, int block, int warp, int shared, uint64_t seed, int skip) {
    using namespace emulated;
    void (*const kernels[])() = {pack, forward, loss, backward, norm, update};
    if (u) {
        update_ = *u;
    } else {
        sizes = *s;
        buffers = *b;
    }
    body = kernels[kernel];
    threads = block;
    lanes = warp;
    skipped = skip;
    failure = nullptr;
    random_state = 0x9e3779b97f4a7c15ull ^ (seed * 0xbf58476d1ce4e5b9ull + 1);
    fibers.resize(threads);
    blockDim.x = block;
    gridDim.x = grid;
    const int values = shared / (int)sizeof(REAL);
    for (int i = 0; i < grid && !failure; i++) {
        for (int e = 0; e < SHARED_VALUES; e++) {
            shared_values[e] = e < values ? (REAL)NAN : (REAL)7;
        }
        blockIdx.x = i;
        run_block();
        for (int e = values; e < SHARED_VALUES; e++) {
            if (shared_values[e] != 7) {
                failure = "a block writes beyond its shared memory";
                break;
            }
        }
    }
    return failure;
}

// One bit for each barrier that a launch has met so far.
extern "C" unsigned long long emulated_barriers() { return emulated::barriers_seen; }
