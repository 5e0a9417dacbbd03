// The kernels as C++ for a CPU: tests compile them with `c++ -include emulation.h -DELEMENT=float`, and so does the software
// GPU's libnvrtc (tests/soft_gpu).
//
// A block's threads run one after the other. Where they meet at barriers they are fibers, which take turns at each barrier.
// Vectors that are not aligned, and barriers in a kernel that says it has none, end the process.
//
// For each kernel K there are two functions, which take a launch's parameters as CUDA's driver does, an array of pointers:
//   visit_K(parameters, visit, context)  calls visit(context, pointer, writes) for each pointer into the GPU's memory
//   bind_K(parameters, host)             copies the parameters, each pointer replaced by host(pointer); gives what fovea_emulate
//                                        runs once, and frees

#pragma once

#define FOVEA_EMULATION
// It would end the process at a longjmp to another stack.
#undef _FORTIFY_SOURCE

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <setjmp.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local

struct uint2 { uint32_t x, y; };
struct uint4 { uint32_t x, y, z, w; };
struct emulated_dim { unsigned x, y, z; };
static thread_local emulated_dim threadIdx, blockIdx, blockDim, gridDim;

static inline float __uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
static inline uint32_t __float_as_uint(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
static inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }

namespace emulation {

[[noreturn]] inline void fail(const char *problem) {
  std::fprintf(stderr, "emulated kernel: %s\n", problem);
  std::abort();
}

template <typename V> void check_alignment(const void *at) {
  if (reinterpret_cast<uintptr_t>(at) % sizeof(V) != 0) {
    fail("a vector that is not aligned");
  }
}

template <typename V> V load(const void *at) {
  check_alignment<V>(at);
  V value;
  std::memcpy(&value, at, sizeof(V));
  return value;
}

template <typename V> void store(void *at, V value) {
  check_alignment<V>(at);
  std::memcpy(at, &value, sizeof(V));
}

// As the instruction cvt.rn.bf16x2.f32.
inline uint32_t rounded(float value) {
  const uint32_t bits = __float_as_uint(value);
  return value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// One of a block's threads, with a stack of its own. It is kept for the next blocks, because making one takes system calls.
struct Fiber {
  static constexpr size_t STACK = 128 << 10;
  std::unique_ptr<char[]> stack{new char[STACK]};
  jmp_buf at;
  bool done = false;
};
// The fibers of this thread of the process. They take turns by _setjmp and _longjmp: swapcontext makes a system call each time.
struct Fibers {
  jmp_buf main;
  std::vector<std::unique_ptr<Fiber>> all;
  Fiber *current = nullptr;
  const std::function<void()> *work = nullptr;
};
inline thread_local Fibers fibers;
inline thread_local bool with_barriers = false;

// Not inlined, so that no local variable of a caller changes between _setjmp and its second return.
[[gnu::noinline]] inline void to_main(Fiber &own) {
  if (_setjmp(own.at) == 0) {
    _longjmp(fibers.main, 1);
  }
}
[[gnu::noinline]] inline void to_fiber(Fiber &fiber) {
  fibers.current = &fiber;
  if (_setjmp(fibers.main) == 0) {
    _longjmp(fiber.at, 1);
  }
}

inline void barrier() {
  if (!with_barriers) {
    fail("a barrier in a kernel that is exported as one without");
  }
  to_main(*fibers.current);
}

inline void live() {
  for (;;) {
    to_main(*fibers.current);
    (*fibers.work)();
    fibers.current->done = true;
  }
}

// Starts a fiber, which comes back when it is ready for work.
[[gnu::noinline]] inline void start(Fiber &fiber) {
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fiber.stack.get();
  context.uc_stack.ss_size = Fiber::STACK;
  context.uc_link = nullptr;
  makecontext(&context, &live, 0);
  fibers.current = &fiber;
  if (_setjmp(fibers.main) == 0) {
    setcontext(&context);
  }
}

inline void at_thread(unsigned number) {
  threadIdx = {number % blockDim.x, number / blockDim.x % blockDim.y, number / (blockDim.x * blockDim.y)};
}

inline void run_block_with_barriers(const std::function<void()> &work) {
  const unsigned count = blockDim.x * blockDim.y * blockDim.z;
  fibers.work = &work;
  while (fibers.all.size() < count) {
    fibers.all.push_back(std::make_unique<Fiber>());
    start(*fibers.all.back());
  }
  for (unsigned i = 0; i < count; ++i) {
    fibers.all[i]->done = false;
  }
  for (unsigned left = count; left > 0;) {
    for (unsigned i = 0; i < count; ++i) {
      Fiber &fiber = *fibers.all[i];
      if (fiber.done) {
        continue;
      }
      at_thread(i);
      to_fiber(fiber);
      left -= fiber.done;
    }
  }
}

struct Bound {
  std::function<void()> work;
  bool barriers;
};

inline void run(const Bound &bound, const unsigned grid[3], const unsigned block[3]) {
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  with_barriers = bound.barriers;
  const unsigned count = blockDim.x * blockDim.y * blockDim.z;
  if (count == 0 || count > 1024) {
    fail("a block of more than 1024 threads, or of none");
  }
  for (unsigned z = 0; z < grid[2]; ++z) {
    for (unsigned y = 0; y < grid[1]; ++y) {
      for (unsigned x = 0; x < grid[0]; ++x) {
        blockIdx = {x, y, z};
        if (bound.barriers) {
          run_block_with_barriers(bound.work);
          continue;
        }
        for (unsigned i = 0; i < count; ++i) {
          at_thread(i);
          bound.work();
        }
      }
    }
  }
}

typedef void (*Visitor)(void *context, const void *pointer, bool writes);
typedef void *(*Host)(const void *pointer);

template <typename A> void visit_one(A value, Visitor visit, void *context) {
  if constexpr (std::is_pointer_v<A>) {
    visit(context, value, !std::is_const_v<std::remove_pointer_t<A>>);
  } else if constexpr (std::is_class_v<A>) {
    value.pointers([&](auto &pointer) { visit(context, pointer, false); });
  }
}

template <typename A> A translated(A value, Host host) {
  if constexpr (std::is_pointer_v<A>) {
    return static_cast<A>(host(value));
  } else if constexpr (std::is_class_v<A>) {
    value.pointers([&](auto &pointer) { pointer = static_cast<std::remove_reference_t<decltype(pointer)>>(host(pointer)); });
  }
  return value;
}

template <typename... A, size_t... I>
void visit(void (*)(A...), void *const *parameters, Visitor visit, void *context, std::index_sequence<I...>) {
  (visit_one(*static_cast<A *>(parameters[I]), visit, context), ...);
}
template <typename... A> void visit(void (*kernel)(A...), void *const *parameters, Visitor visit, void *context) {
  emulation::visit(kernel, parameters, visit, context, std::index_sequence_for<A...>());
}

template <typename... A, size_t... I>
void *bind(void (*kernel)(A...), void *const *parameters, Host host, bool barriers, std::index_sequence<I...>) {
  const std::tuple<A...> own(translated(*static_cast<A *>(parameters[I]), host)...);
  return new Bound{[kernel, own] { std::apply(kernel, own); }, barriers};
}
template <typename... A> void *bind(void (*kernel)(A...), void *const *parameters, Host host, bool barriers) {
  return emulation::bind(kernel, parameters, host, barriers, std::index_sequence_for<A...>());
}

} // namespace emulation

extern "C" inline __attribute__((used)) void fovea_emulate(void *bound, const unsigned grid[3], const unsigned block[3]) {
  emulation::Bound *own = static_cast<emulation::Bound *>(bound);
  emulation::run(*own, grid, block);
  delete own;
}

#define EMULATED(kernel, barriers)                                                                                       \
  extern "C" void visit_##kernel(void *const *parameters, emulation::Visitor visit, void *context) {                   \
    emulation::visit(&kernel, parameters, visit, context);                                                             \
  }                                                                                                                    \
  extern "C" void *bind_##kernel(void *const *parameters, emulation::Host host) {                                      \
    return emulation::bind(&kernel, parameters, host, barriers);                                                       \
  }
#define EXPORT(kernel) EMULATED(kernel, false)
#define EXPORT_WITH_BARRIERS(kernel) EMULATED(kernel, true)

static inline uint4 load16(const void *at) { return emulation::load<uint4>(at); }
static inline uint2 load8(const void *at) { return emulation::load<uint2>(at); }
static inline uint32_t load4(const void *at) { return emulation::load<uint32_t>(at); }
static inline void store16(void *at, uint4 value) { emulation::store(at, value); }
static inline void store8(void *at, uint2 value) { emulation::store(at, value); }
static inline void __syncthreads() { emulation::barrier(); }
static inline uint32_t rounded(float low, float high) { return emulation::rounded(low) | emulation::rounded(high) << 16; }
