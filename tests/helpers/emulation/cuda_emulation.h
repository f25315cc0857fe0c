// A CUDA block on one CPU core: compiles the very same .cu source with g++ -std=c++17, sanitizers included.
//
// In the .cu:
//     #ifdef FRAMEGATE_EMULATION
//     #include "cuda_emulation.h"
//     #else
//     #include <cuda_fp16.h>
//     #define FRAMEGATE_DYNAMIC_SHARED(type, name) ...  (as in probe.cu)
//     #endif
//     extern "C" __global__ void __launch_bounds__(256) my_kernel(const float* x, unsigned n) { ... }
// From Python (../emulate.py, fixture `emulate` of tests/cuda_kernels/conftest.py):
//     module = emulate.compile("cuda_kernels/my/kernel.cu")
//     module.launch("my_kernel", grid=(4,), block=(256,), arguments=(array, np.uint32(n)), order=1)
//
// What it does. The threads of a block are fibres; blocks run one after the other. A fibre runs until it waits: at
// __syncthreads (until ALL threads of the block wait there), or in a warp function (until all lanes of the mask are in the
// same function with the same mask). What hardware leaves undefined fails here with a message: a barrier that an exited
// thread never reaches, a mask naming a lane that is elsewhere or absent, a shuffle that reads a lane outside the mask,
// a misaligned access (through -fsanitize=alignment, see the handler at the end), blocks or shared memory too large.
// `order` turns the schedule of threads and blocks: 0 ascending, 1 descending, any other number a seeded shuffle. A race in
// shared memory (a forgotten barrier) shows as a result that depends on the order. Dynamic shared memory is filled with 0xFF
// (NaN) before every block and has its exact size on the heap; `__shared__` arrays are static: they keep what the last block
// left, so don't count on zeros.
//
// What it cannot show: memory ordering between threads that run at the same time (fences only yield), the approximation
// errors of the GPU's exp and log (__expf models the argument's rounding, not the unit), fused multiply-add where nvcc
// contracts a*b+c, speed.
#pragma once

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "cuda_emulation_types.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define EMULATION_ASAN 1
#else
#define EMULATION_ASAN 0
#endif

#define __global__ __attribute__((visibility("default")))  // emulate.py finds the kernels by this attribute
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define FRAMEGATE_DYNAMIC_SHARED(type, name) \
    type* const name = reinterpret_cast<type*>(::emulation::machine().shared_memory())

namespace emulation {

constexpr unsigned kWarp = 32;
constexpr size_t kStackBytes = EMULATION_ASAN ? 256 * 1024 : 64 * 1024;
constexpr size_t kSharedLimit = 48 * 1024;  // more needs cuFuncSetAttribute on every GPU

enum class State : unsigned char { ready, at_barrier, in_warp, done };
enum class Collective : unsigned char { shuffle, vote };

struct Warp;

struct Thread {
    uint3 index;
    unsigned lane;
    Warp* warp;
    State state;
    Collective kind;     // what follows is valid while in_warp
    unsigned mask;
    unsigned source;     // the lane whose value this lane asks for
    uint64_t value;
    uint64_t result;
    unsigned ballot;
    bool started;
    std::unique_ptr<unsigned char[]> stack;
    ucontext_t context;  // the first entry; under ASan every switch
    jmp_buf jump;        // later switches: swapcontext costs two system calls, _longjmp none
    void* fake_stack;
};

struct Warp {
    Thread* lanes[kWarp];
    unsigned waiting;  // lanes that are in a warp function
};

class Machine {
   public:
    uint3 block_index{}, block_extent{}, grid_extent{};
    Thread* current = nullptr;
    void (*fence_hook)() = nullptr;
    char error[512] = "";

    void* shared_memory() {
        if (!shared_) fail("the kernel uses dynamic shared memory, but the launch gave it 0 bytes");
        return shared_.get();
    }

    /// Ends the launch: control never returns to the kernel, whose frames are simply abandoned.
    [[noreturn]] void fail(const char* what) {
        if (!error[0]) {
            const uint3 t = current ? current->index : uint3{};
            snprintf(error, sizeof error, "%s [block (%u, %u, %u), thread (%u, %u, %u)]", what, block_index.x,
                     block_index.y, block_index.z, t.x, t.y, t.z);
        }
        to_scheduler();
        __builtin_unreachable();
    }

    /// Waits for all threads of the block; returns how many of them voted. The result stays until the next barrier is
    /// complete, which is after every thread has read it.
    unsigned barrier(bool vote = false) {
        votes_under_way_ += vote;
        if (++barrier_arrived_ < count_) {
            current->state = State::at_barrier;
            to_scheduler();
        } else {
            votes_ = votes_under_way_;
            barrier_arrived_ = votes_under_way_ = 0;
            for (unsigned i = 0; i < count_; ++i) threads_[i].state = State::ready;
        }
        return votes_;
    }

    /// One warp function: leaves the value of lane `source` in result and the lanes with value != 0 in ballot.
    const Thread& collective(Collective kind, unsigned mask, uint64_t value, unsigned source) {
        Thread& me = *current;
        Warp& warp = *me.warp;
        if (!(mask >> me.lane & 1)) fail("a warp function was called by a lane that its mask does not name");
        me.kind = kind, me.mask = mask, me.value = value, me.source = source;
        warp.waiting |= 1u << me.lane;
        if ((warp.waiting & mask) == mask && all_agree(warp, mask, kind)) {
            complete(warp, mask, kind);
            me.state = State::ready;
        } else {
            me.state = State::in_warp;
            to_scheduler();
        }
        return me;
    }

    void system_fence() {
        if (!fence_hook) return;
        hook_pending_ = true;  // the hook may be Python, which needs more stack than a fibre has
        to_scheduler();
    }

    int run(const unsigned* grid, const unsigned* block, size_t shared_bytes, uint64_t order,
            const std::function<void()>& kernel) {
        error[0] = 0;
        current = nullptr;
        const uint64_t threads = uint64_t(block[0]) * block[1] * block[2];
        const uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2];
        if (threads == 0 || threads > 1024 || block[2] > 64) return refuse("block: asked for 1 to 1024 threads, z <= 64");
        if (blocks == 0 || grid[1] > 65535 || grid[2] > 65535) return refuse("grid: asked for >= 1 block, y, z <= 65535");
        if (shared_bytes > kSharedLimit) return refuse("dynamic shared memory: more than 48 KiB asked for");
        grid_extent = {grid[0], grid[1], grid[2]}, block_extent = {block[0], block[1], block[2]};
        count_ = unsigned(threads), kernel_ = &kernel;
        shared_.reset(shared_bytes ? new (std::align_val_t(16)) unsigned char[shared_bytes] : nullptr);
        make_threads();
        std::vector<uint64_t> block_order(blocks);
        std::vector<unsigned> thread_order(count_);
        arrange(block_order, order), arrange(thread_order, order);
        for (uint64_t b : block_order) {
            block_index = {unsigned(b % grid[0]), unsigned(b / grid[0] % grid[1]), unsigned(b / grid[0] / grid[1])};
            if (shared_bytes) memset(shared_.get(), 0xFF, shared_bytes);
            if (!run_block(thread_order)) break;
        }
        shared_.reset();
        current = nullptr;
        if (error[0]) threads_.clear();  // their stacks hold abandoned frames
        return error[0] ? 1 : 0;
    }

   private:
    struct AlignedDelete {
        void operator()(unsigned char* p) const { operator delete[](p, std::align_val_t(16)); }
    };
    std::vector<Thread> threads_;
    std::vector<Warp> warps_;
    std::unique_ptr<unsigned char[], AlignedDelete> shared_;
    const std::function<void()>* kernel_ = nullptr;
    unsigned count_ = 0, barrier_arrived_ = 0, votes_under_way_ = 0, votes_ = 0;
    bool hook_pending_ = false;
    ucontext_t main_context_;
    jmp_buf main_jump_;
    void* main_fake_stack_ = nullptr;
    const void* main_bottom_ = nullptr;
    size_t main_size_ = 0;

    int refuse(const char* what) {
        snprintf(error, sizeof error, "%s", what);
        return 1;
    }

    template <class T>
    static void arrange(std::vector<T>& sequence, uint64_t order) {
        std::iota(sequence.begin(), sequence.end(), T(0));
        if (order == 1) std::reverse(sequence.begin(), sequence.end());
        if (order > 1) std::shuffle(sequence.begin(), sequence.end(), std::mt19937_64(order));
    }

    static bool all_agree(const Warp& warp, unsigned mask, Collective kind) {
        for (unsigned lane = 0; lane < kWarp; ++lane)
            if (mask >> lane & 1 && (warp.lanes[lane]->mask != mask || warp.lanes[lane]->kind != kind)) return false;
        return true;
    }

    void complete(Warp& warp, unsigned mask, Collective kind) {
        unsigned ballot = 0;
        for (unsigned lane = 0; lane < kWarp; ++lane)
            if (mask >> lane & 1 && warp.lanes[lane]->value) ballot |= 1u << lane;
        for (unsigned lane = 0; lane < kWarp; ++lane) {
            if (!(mask >> lane & 1)) continue;
            Thread& thread = *warp.lanes[lane];
            if (kind == Collective::shuffle && !(mask >> thread.source & 1))
                fail("a shuffle reads a lane that its mask does not name");
            thread.result = warp.lanes[thread.source]->value;
            thread.ballot = ballot;
        }
        // Only now may anyone go on: a lane that runs ahead overwrites its value.
        for (unsigned lane = 0; lane < kWarp; ++lane)
            if (mask >> lane & 1) warp.lanes[lane]->state = State::ready;
        warp.waiting &= ~mask;
    }

    void make_threads() {
        while (threads_.size() < count_) {
            Thread thread{};
            thread.stack.reset(new unsigned char[kStackBytes]);  // uninitialised on purpose: untouched pages cost nothing
            threads_.push_back(std::move(thread));
        }
        for (Thread& thread : threads_) thread.started = false;  // jump buffers may not outlive a move of the vector
        warps_.assign((count_ + kWarp - 1) / kWarp, Warp{});
        for (unsigned i = 0; i < count_; ++i) {
            Thread& thread = threads_[i];
            thread.index = {i % block_extent.x, i / block_extent.x % block_extent.y,
                            i / block_extent.x / block_extent.y};
            thread.lane = i % kWarp, thread.warp = &warps_[i / kWarp];
            thread.warp->lanes[thread.lane] = &thread;
        }
    }

    bool run_block(const std::vector<unsigned>& thread_order) {
        barrier_arrived_ = votes_under_way_ = 0;
        for (Warp& warp : warps_) warp.waiting = 0;
        for (unsigned i = 0; i < count_; ++i) threads_[i].state = State::ready;
        for (;;) {
            bool progress = false;
            unsigned finished = 0;
            for (unsigned i : thread_order) {
                Thread& thread = threads_[i];
                while (thread.state == State::ready) {
                    progress = true;
                    resume(thread);
                    if (error[0]) return false;
                    if (!hook_pending_) break;
                    hook_pending_ = false;
                    fence_hook();
                }
                finished += thread.state == State::done;
            }
            if (finished == count_) return true;
            if (!progress) return stuck();
        }
    }

    bool stuck() {
        unsigned barrier = 0, warp = 0, done = 0;
        for (unsigned i = 0; i < count_; ++i) {
            barrier += threads_[i].state == State::at_barrier;
            warp += threads_[i].state == State::in_warp;
            done += threads_[i].state == State::done;
        }
        snprintf(error, sizeof error,
                 "deadlock in block (%u, %u, %u): of %u threads %u wait at __syncthreads, %u in a warp function whose mask "
                 "names lanes that are elsewhere, %u have returned",
                 block_index.x, block_index.y, block_index.z, count_, barrier, warp, done);
        return false;
    }

    static void entry();  // the body of every fibre

    void resume(Thread& thread) {
        current = &thread;
        if (!thread.started) {
            getcontext(&thread.context);
            thread.context.uc_stack.ss_sp = thread.stack.get();
            thread.context.uc_stack.ss_size = kStackBytes;
            thread.context.uc_link = nullptr;
            makecontext(&thread.context, &Machine::entry, 0);
        }
        const bool first = !thread.started;
        thread.started = true;
#if EMULATION_ASAN
        if (first) __asan_unpoison_memory_region(thread.stack.get(), kStackBytes);
        __sanitizer_start_switch_fiber(&main_fake_stack_, thread.stack.get(), kStackBytes);
        swapcontext(&main_context_, &thread.context);
        __sanitizer_finish_switch_fiber(main_fake_stack_, nullptr, nullptr);
#else
        if (_setjmp(main_jump_)) return;
        if (first) setcontext(&thread.context);
        _longjmp(thread.jump, 1);
#endif
    }

    void to_scheduler() {
        Thread& me = *current;
#if EMULATION_ASAN
        __sanitizer_start_switch_fiber(&me.fake_stack, main_bottom_, main_size_);
        swapcontext(&me.context, &main_context_);
        __sanitizer_finish_switch_fiber(me.fake_stack, &main_bottom_, &main_size_);
#else
        if (_setjmp(me.jump) == 0) _longjmp(main_jump_, 1);
#endif
    }

    friend Machine& machine();
};

inline Machine& machine() {
    static Machine instance;
    return instance;
}

inline void Machine::entry() {
    Machine& m = machine();
#if EMULATION_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &m.main_bottom_, &m.main_size_);
#endif
    for (;;) {  // a fibre outlives its block: making one costs more than all its switches
        (*m.kernel_)();
        m.current->state = State::done;
        m.to_scheduler();
    }
}

template <class... Arguments, size_t... I>
int launch(void (*kernel)(Arguments...), std::index_sequence<I...>, const unsigned* grid, const unsigned* block,
           size_t shared_bytes, void** parameters, uint64_t order) {
    (void)parameters;
    return machine().run(grid, block, shared_bytes, order,
                         [=] { kernel(*static_cast<std::remove_reference_t<Arguments>*>(parameters[I])...); });
}

template <class... Arguments>
int launch(void (*kernel)(Arguments...), const unsigned* grid, const unsigned* block, size_t shared_bytes,
           void** parameters, uint64_t order) {
    return launch(kernel, std::index_sequence_for<Arguments...>(), grid, block, shared_bytes, parameters, order);
}

/// Writes the size of every parameter (at most 32) and returns their number, so that Python can check its arguments.
template <class... Arguments>
int parameter_sizes(void (*)(Arguments...), size_t* sizes) {
    static_assert(sizeof...(Arguments) <= 32, "more parameters than emulate.py asks for");
    ((*sizes++ = sizeof(Arguments)), ...);
    return int(sizeof...(Arguments));
}

}  // namespace emulation

// emulate.py appends one of these per kernel to the translation unit.
#define EMULATION_EXPORT(kernel)                                                                                        \
    extern "C" __attribute__((visibility("default"))) int emulate_##kernel(                                             \
        const unsigned* grid, const unsigned* block, size_t shared_bytes, void** parameters, uint64_t order) {          \
        return ::emulation::launch(&kernel, grid, block, shared_bytes, parameters, order);                              \
    }                                                                                                                   \
    extern "C" __attribute__((visibility("default"))) int emulate_sizes_##kernel(size_t* sizes) {                       \
        return ::emulation::parameter_sizes(&kernel, sizes);                                                            \
    }

extern "C" __attribute__((visibility("default"), used)) inline const char* emulation_error() {
    return ::emulation::machine().error;
}

/// The hook is called at every __threadfence_system: what it then sees in mapped memory is what a host may see.
extern "C" __attribute__((visibility("default"), used)) inline void emulation_on_system_fence(void (*hook)()) {
    ::emulation::machine().fence_hook = hook;
}

#include "cuda_emulation_functions.h"
