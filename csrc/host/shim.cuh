// Where a kernel runs: launch, thread identity, barriers, shared memory; on a device, or on the CPU under g++.
//
// On the CPU the threads of a block are fibres of one OS thread. A collective operation parks the fibre until its warp or
// block has arrived, so a kernel runs as written, in a seeded random thread and block order. Shared memory starts as NaNs
// in a heap block of exactly the launch's size. A block in which nobody can go on is reported with the place where each
// thread waits. Under -fsanitize=thread a switch does not synchronise and a barrier does: a race is reported as such.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dnasm {

struct LaunchShape {
  int64_t blocks;
  int threads;
  size_t shared_bytes;
  void* stream;
};

}  // namespace dnasm

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#define DNASM_DEVICE __device__ __forceinline__
#define DNASM_SHARED_CODE __host__ __device__ constexpr
#define DNASM_KERNEL(threads, blocks_per_sm) __global__ void __launch_bounds__(threads, blocks_per_sm)
#define DNASM_UNROLL _Pragma("unroll")
#define DNASM_UNROLL_BY_FOUR _Pragma("unroll 4")
#define DNASM_UNROLL_ONCE _Pragma("unroll 1")

namespace dnasm {

DNASM_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
DNASM_DEVICE int block_index() { return static_cast<int>(blockIdx.x); }
DNASM_DEVICE void sync_block() { __syncthreads(); }
DNASM_DEVICE void sync_warp() { __syncwarp(); }
DNASM_DEVICE char* dynamic_shared() {
  extern __shared__ __align__(128) char shared[];
  return shared;
}

inline size_t shared_memory_limit() {
  int device = 0, bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return static_cast<size_t>(bytes);
}

template <class... Args>
const char* launch(void (*kernel)(Args...), const LaunchShape& shape, Args... args) {
  if (shape.blocks == 0) return nullptr;
  if (shape.blocks > 0x7fffffff) return "more than 2^31 - 1 blocks: split the batch";
  cudaError_t status = cudaSuccess;
  if (shape.shared_bytes > 48 << 10)  // what a block has without asking
    status = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shape.shared_bytes));
  if (status == cudaSuccess) {
    void* pointers[] = {&args...};
    status = cudaLaunchKernel(reinterpret_cast<const void*>(kernel), dim3(static_cast<unsigned>(shape.blocks)),
                              dim3(static_cast<unsigned>(shape.threads)), pointers, shape.shared_bytes,
                              static_cast<cudaStream_t>(shape.stream));
  }
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

}  // namespace dnasm

#else  // the CPU

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#if defined(__x86_64__) && !defined(DNASM_UCONTEXT)
#define DNASM_OWN_SWITCH  // a tenth of the time that ucontext takes, which other CPUs use
#else
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" void AnnotateIgnoreReadsBegin(const char*, int);
extern "C" void AnnotateIgnoreReadsEnd(const char*, int);
extern "C" void AnnotateIgnoreWritesBegin(const char*, int);
extern "C" void AnnotateIgnoreWritesEnd(const char*, int);
#endif

#define DNASM_HIDDEN __attribute__((no_sanitize("thread"))) inline  // the emulator's own state is no business of the race checker
#define DNASM_DEVICE inline
#define DNASM_SHARED_CODE constexpr
#define DNASM_KERNEL(threads, blocks_per_sm) void
#define DNASM_UNROLL
#define DNASM_UNROLL_BY_FOUR
#define DNASM_UNROLL_ONCE

namespace dnasm::host {

constexpr size_t kStackBytes = 256 << 10, kPage = 4096;

#if defined(DNASM_OWN_SWITCH)
extern "C" void dnasm_switch_stack(void** from, void* to);
asm(R"(
  .pushsection .text
  .weak dnasm_switch_stack
  .type dnasm_switch_stack, @function
dnasm_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .popsection
)");
#endif

struct Fibre {
  char* stack = nullptr;  // above one guard page
  size_t stack_bytes = kStackBytes;
  void* sanitizer = nullptr;
  const char* waits_at = nullptr;  // null: runnable or finished
  bool finished = false;
  unsigned block_barriers = 0, warp_barriers = 0;  // passed so far
#if defined(DNASM_OWN_SWITCH)
  void* saved = nullptr;
#else
  ucontext_t saved;
#endif
};

struct Gathering {  // of a warp or of the block, at one operation
  const char* operation = nullptr;
  int arrived = 0;
  void* arguments[32];
  char order[2];  // for the race checker, in turn: who is late at one barrier learns nothing of the next
};

struct Emulator {
  uint64_t random = 1;
  size_t shared_limit = 232448;  // 227 KB, as on sm_90
  std::vector<Fibre> fibres;     // threads of the running block; kept between blocks
  std::vector<int> runnable;
  std::vector<Gathering> warps;
  Gathering block;
  Fibre main;
  int threads = 0, running = 0, alive = 0;
  int64_t block_index = 0;
  char* shared = nullptr;
  void (*body)(void*) = nullptr;
  void* body_argument = nullptr;
};
inline Emulator emulator;

// The same for whatever runs in its scope; never across a switch.
struct Hidden {
#if defined(__SANITIZE_THREAD__)
  Hidden() { AnnotateIgnoreReadsBegin("", 0), AnnotateIgnoreWritesBegin("", 0); }
  ~Hidden() { AnnotateIgnoreReadsEnd("", 0), AnnotateIgnoreWritesEnd("", 0); }
#else
  Hidden() {}
  ~Hidden() {}
#endif
};

inline void tsan_release([[maybe_unused]] void* at) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(at);
#endif
}
inline void tsan_acquire([[maybe_unused]] void* at) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(at);
#endif
}

inline uint32_t next_random() {
  emulator.random = emulator.random * 6364136223846793005u + 1442695040888963407u;
  return static_cast<uint32_t>(emulator.random >> 33);
}

[[noreturn]] inline void fail(const char* what) {
  fprintf(stderr, "emulator: %s in block %lld\n", what, static_cast<long long>(emulator.block_index));
  for (int t = 0; t < emulator.threads; ++t)
    if (emulator.fibres[t].waits_at)
      fprintf(stderr, "  warp %d lane %2d waits at %s\n", t / 32, t % 32, emulator.fibres[t].waits_at);
  fflush(stderr);
  _exit(86);
}

inline void enter_fibre();
DNASM_HIDDEN Fibre* first_fibre() {
  Hidden hidden;
  return emulator.fibres.data();
}

DNASM_HIDDEN unsigned next_barrier(unsigned Fibre::* count) {
  Hidden hidden;
  return (emulator.fibres[emulator.running].*count)++ % 2;
}

DNASM_HIDDEN void switch_between(Fibre& from, Fibre& to, bool from_ends) {
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(to.sanitizer, 1);  // 1: the switch orders nothing
#endif
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(from_ends ? nullptr : &fake, to.stack, to.stack_bytes);
#endif
#if defined(DNASM_OWN_SWITCH)
  dnasm_switch_stack(&from.saved, to.saved);
#else
  swapcontext(&from.saved, &to.saved);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  (void)from_ends;
}

DNASM_HIDDEN int pick_runnable() {  // -1: nobody can go on
  Hidden hidden;
  Emulator& e = emulator;
  if (e.runnable.empty()) return -1;
  const size_t pick = next_random() % e.runnable.size();
  const int next = e.runnable[pick];
  e.runnable[pick] = e.runnable.back();
  e.runnable.pop_back();
  return next;
}

DNASM_HIDDEN void run_another(bool ends) {  // give way to a thread that can go on
  Emulator& e = emulator;
  const int current = e.running, next = pick_runnable();
  if (next < 0 && e.alive > 0) fail("deadlock: no thread can go on");
  if (next == current) return;
  Fibre* fibres = first_fibre();
  if (next >= 0) e.running = next;
  switch_between(fibres[current], next < 0 ? e.main : fibres[next], ends);
}

inline void prepare(Fibre& f) {
  if (!f.stack) {
    char* base = static_cast<char*>(mmap(nullptr, kStackBytes + kPage, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (base == MAP_FAILED || mprotect(base, kPage, PROT_NONE) != 0) fail("no memory for a fibre");
    f.stack = base + kPage;
  }
  f.finished = false, f.waits_at = nullptr, f.block_barriers = f.warp_barriers = 0;
#if defined(DNASM_OWN_SWITCH)
  void** top = reinterpret_cast<void**>(f.stack + kStackBytes);
  *--top = nullptr;  // keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(&enter_fibre);
  f.saved = top - 6;
#else
  getcontext(&f.saved);
  f.saved.uc_stack.ss_sp = f.stack, f.saved.uc_stack.ss_size = kStackBytes, f.saved.uc_link = nullptr;
  makecontext(&f.saved, &enter_fibre, 0);
#endif
#if defined(__SANITIZE_THREAD__)
  if (!f.sanitizer) f.sanitizer = __tsan_create_fiber(0);  // kept between blocks: making one takes a millisecond
#endif
}

inline void enter_fibre() {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (!emulator.main.stack) {  // the very first fibre comes from there
    emulator.main.stack = static_cast<char*>(const_cast<void*>(bottom));
    emulator.main.stack_bytes = size;
  }
#endif
  tsan_acquire(&emulator.fibres);
  emulator.body(emulator.body_argument);
  tsan_release(&emulator.main);
  {
    Hidden hidden;
    emulator.fibres[emulator.running].finished = true, --emulator.alive;
  }
  run_another(true);
  fail("a finished thread was resumed");
}

// Wait until `members` threads stand at this operation; the last one acts for all. Returns whether this one was last.
template <class Act>
DNASM_HIDDEN void gather(Gathering& g, int members, int rank, int first, const char* operation, void* argument, Act act) {
  Emulator& e = emulator;
  bool last;
  {
    Hidden hidden;
    if (g.arrived && g.operation != operation && strcmp(g.operation, operation) != 0) {
      e.fibres[e.running].waits_at = operation;
      fail("threads of one warp stand at different operations");
    }
    g.operation = operation;
    if (rank < 32) g.arguments[rank] = argument;
    last = ++g.arrived == members;
    if (last) {
      act(g.arguments);
      g.arrived = 0;
      for (int t = first; t < first + members; ++t) {
        if (t == e.running) continue;
        e.fibres[t].waits_at = nullptr;
        e.runnable.push_back(t);
      }
      e.runnable.push_back(e.running);  // the last one to come is not the first one to go
    } else {
      e.fibres[e.running].waits_at = operation;
    }
  }
  run_another(false);
}

DNASM_HIDDEN Gathering& warp_of(int thread) {
  Hidden hidden;
  return emulator.warps[static_cast<size_t>(thread / 32)];
}
template <class Args, class Act>
DNASM_HIDDEN void warp_collective(const char* operation, Args& mine, Act act) {
  const int t = emulator.running;
  gather(warp_of(t), 32, t % 32, t / 32 * 32, operation, &mine,
         [&](void** all) { act(reinterpret_cast<Args**>(all)); });
}

inline void run_block(int threads, size_t shared_bytes) {
  Emulator& e = emulator;
  void* shared = nullptr;  // exactly as large as asked for, so that the address sanitizer sees its end
  if (posix_memalign(&shared, 128, shared_bytes ? shared_bytes : 1) != 0) fail("no memory for a block");
  e.shared = static_cast<char*>(shared);
  memset(e.shared, 0xff, shared_bytes);
  e.threads = e.alive = threads;
  if (static_cast<int>(e.fibres.size()) < threads) e.fibres.resize(threads);
  e.warps.assign((threads + 31) / 32, Gathering());
  e.block = Gathering();
  e.runnable.clear();
  for (int t = 0; t < threads; ++t) prepare(e.fibres[t]), e.runnable.push_back(t);
  const size_t first = next_random() % e.runnable.size();
  tsan_release(&e.fibres);
  e.running = e.runnable[first];
  e.runnable.erase(e.runnable.begin() + static_cast<ptrdiff_t>(first));
#if defined(__SANITIZE_THREAD__)
  e.main.sanitizer = __tsan_get_current_fiber();
#endif
  switch_between(e.main, e.fibres[e.running], false);
  tsan_acquire(&e.main);
  free(shared);
}

}  // namespace dnasm::host

namespace dnasm {

DNASM_HIDDEN int thread_index() { return host::emulator.running; }
DNASM_HIDDEN int block_index() { return static_cast<int>(host::emulator.block_index); }
DNASM_HIDDEN char* dynamic_shared() { return host::emulator.shared; }
DNASM_HIDDEN void sync_block() {
  host::Emulator& e = host::emulator;
  void* order = &e.block.order[host::next_barrier(&host::Fibre::block_barriers)];
  host::tsan_release(order);
  host::gather(e.block, e.threads, 32, 0, "sync_block", nullptr, [](void**) {});
  host::tsan_acquire(order);
}
DNASM_HIDDEN void sync_warp() {
  int nothing = 0;
  void* order = &host::warp_of(host::emulator.running).order[host::next_barrier(&host::Fibre::warp_barriers)];
  host::tsan_release(order);
  host::warp_collective("sync_warp", nothing, [](int**) {});
  host::tsan_acquire(order);
}

inline size_t shared_memory_limit() { return host::emulator.shared_limit; }

template <class... Args>
const char* launch(void (*kernel)(Args...), const LaunchShape& shape, Args... args) {
  host::Emulator& e = host::emulator;
  if (shape.blocks > 0x7fffffff) return "more than 2^31 - 1 blocks: split the batch";
  if (shape.threads % 32 || shape.threads > 1024) return "threads of a block: a multiple of 32, at most 1024";
  if (shape.shared_bytes > e.shared_limit) return "too much shared memory for one block";
  auto call = [&] { kernel(args...); };
  e.body = [](void* f) { (*static_cast<decltype(call)*>(f))(); };
  e.body_argument = &call;
  std::vector<int64_t> order(static_cast<size_t>(shape.blocks));
  for (size_t i = 0; i < order.size(); ++i) {
    const size_t j = host::next_random() % (i + 1);
    order[i] = order[j], order[j] = static_cast<int64_t>(i);
  }
  for (int64_t b : order) e.block_index = b, host::run_block(shape.threads, shape.shared_bytes);
  return nullptr;
}

}  // namespace dnasm

#endif
