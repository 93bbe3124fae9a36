// As much of CUDA as offsim/codec/cuszp.cu uses, on one CPU thread.
//
// A thread block runs at a time, and each of its threads is a fiber. A fiber runs until it meets a
// collective (a shuffle, a barrier); there it waits for the others of its warp or block. A program
// that no GPU would finish (lanes at different collectives, a lane that left) ends with a message.
// Lanes may run in reverse, which shows whether a result depends on their order.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(threads)

struct Index {
    unsigned x;
};
static Index threadIdx, blockIdx, blockDim;

namespace cpu {

constexpr unsigned LANES = 32, MOST = 1024;
constexpr size_t STACK = 64 << 10;

// A group of threads that meet: a warp or the block.
struct Meeting {
    unsigned members = 0, arrived = 0, round = 0;
    const char* kind = nullptr;
    uint64_t slots[2][MOST];  // one for each parity of the round: nobody is two rounds ahead
    bool any[2];
};

static Meeting warps[MOST / LANES], everyone;
static ucontext_t host, fibers[MOST];
static std::unique_ptr<char[]> stacks(new char[MOST * STACK]);
static bool done[MOST], moved, reversed;
static unsigned running;
static std::function<void()> body;

[[noreturn]] inline void fail(const char* why, const char* kind) {
    std::fprintf(stderr, "cuda_on_cpu: %s at %s, thread %u of block %u\n", why, kind, running,
                 blockIdx.x);
    std::abort();
}

inline void pause() { swapcontext(&fibers[running], &host); }

// Leaves a value, waits for the other members, and returns the slots that all of them filled.
template <class Value>
const uint64_t* meet(Meeting& group, unsigned own, const char* kind, Value value, bool flag,
                     bool* any) {
    const unsigned round = group.round, parity = round & 1;
    if (group.arrived == 0) {
        group.kind = kind;
        group.any[parity] = false;
    } else if (std::strcmp(group.kind, kind) != 0) {
        fail("threads of a group are at different collectives", kind);
    }
    group.slots[parity][own] = 0;
    std::memcpy(&group.slots[parity][own], &value, sizeof value);
    group.any[parity] |= flag;
    moved = true;
    if (++group.arrived == group.members) {
        group.arrived = 0;
        ++group.round;
    }
    while (group.round == round) pause();
    if (any) *any = group.any[parity];
    return group.slots[parity];
}

template <class Value>
Value shuffle(unsigned mask, Value value, unsigned source, const char* kind) {
    if (mask != 0xffffffffu) fail("only whole warps may shuffle", kind);
    const unsigned lane = threadIdx.x % LANES;
    const uint64_t* slots = meet(warps[threadIdx.x / LANES], lane, kind, value, false, nullptr);
    Value result;
    std::memcpy(&result, &slots[source], sizeof result);
    return result;
}

inline void run_fiber() {
    body();
    done[running] = moved = true;
    pause();
}

inline void start_fiber(unsigned thread) {
    ucontext_t& fiber = fibers[thread];
    done[thread] = false;
    getcontext(&fiber);
    fiber.uc_stack.ss_sp = &stacks[thread * STACK];
    fiber.uc_stack.ss_size = STACK;
    fiber.uc_link = nullptr;
    makecontext(&fiber, run_fiber, 0);
}

inline void run_block(unsigned threads) {
    everyone = Meeting();
    everyone.members = threads;
    for (unsigned w = 0; w * LANES < threads; ++w) {
        warps[w].members = threads - w * LANES < LANES ? threads - w * LANES : LANES;
        warps[w].arrived = warps[w].round = 0;
    }
    for (unsigned t = 0; t < threads; ++t) start_fiber(t);
    for (unsigned left = threads; left;) {
        moved = false;
        for (unsigned turn = 0; turn < threads; ++turn) {
            running = reversed ? threads - 1 - turn : turn;
            if (done[running]) continue;
            threadIdx.x = running;
            swapcontext(&host, &fibers[running]);
            left -= done[running];
        }
        if (left && !moved) fail("a thread waits for one that has left", "a collective");
    }
}

}  // namespace cpu

template <class Value>
Value __shfl_sync(unsigned mask, Value value, int source, int width = 32) {
    const unsigned lane = threadIdx.x % cpu::LANES;
    return cpu::shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), "shfl");
}

template <class Value>
Value __shfl_up_sync(unsigned mask, Value value, unsigned delta, int width = 32) {
    const unsigned lane = threadIdx.x % cpu::LANES;
    const bool inside = (lane & (width - 1)) >= delta;
    return cpu::shuffle(mask, value, inside ? lane - delta : lane, "shfl_up");
}

template <class Value>
Value __shfl_xor_sync(unsigned mask, Value value, int lanes) {
    return cpu::shuffle(mask, value, (threadIdx.x % cpu::LANES) ^ lanes, "shfl_xor");
}

inline int __syncthreads_or(int flag) {
    bool any;
    cpu::meet(cpu::everyone, threadIdx.x, "syncthreads_or", 0, flag != 0, &any);
    return any;
}

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }

inline int __float2int_rz(float x) {
    if (std::isnan(x)) return 0;
    if (x >= 2147483648.0f) return INT32_MAX;
    if (x <= -2147483648.0f) return INT32_MIN;
    return static_cast<int>(x);
}

inline unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
