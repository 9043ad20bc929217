// Announces fibers and their synchronization to the sanitizers. Functions are empty in builds without the sanitizer.
#pragma once
#include <cstddef>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CUDA_ON_CPU_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define CUDA_ON_CPU_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define CUDA_ON_CPU_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define CUDA_ON_CPU_TSAN 1
#endif

#if defined(CUDA_ON_CPU_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(CUDA_ON_CPU_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#endif

// For functions that run while the stack is switched.
#define CUDA_ON_CPU_UNCHECKED __attribute__((noinline, no_sanitize("address"), no_sanitize("thread")))

namespace cuda_on_cpu {

// The number of orders of threads that a test runs. TSan reports a race in any order, so one is enough there.
constexpr unsigned orders([[maybe_unused]] unsigned without_tsan) {
#if defined(CUDA_ON_CPU_TSAN)
  return 1;
#else
  return without_tsan;
#endif
}

// Hides the emulator's own data accesses from TSan, which treats fibers as threads and would report races. Memory
// allocated or freed in the meantime has no access history.
struct Quiet {
#if defined(CUDA_ON_CPU_TSAN)
  Quiet() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Quiet() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
#else
  Quiet() {}
  ~Quiet() {}
#endif
  Quiet(const Quiet&) = delete;
};

// Accesses before release(clock) in one thread happen before accesses after acquire(clock) in another.
inline void release([[maybe_unused]] void* clock) {
#if defined(CUDA_ON_CPU_TSAN)
  __tsan_release(clock);
#endif
}

inline void acquire([[maybe_unused]] void* clock) {
#if defined(CUDA_ON_CPU_TSAN)
  __tsan_acquire(clock);
#endif
}

inline void* create_tsan_fiber() {
#if defined(CUDA_ON_CPU_TSAN)
  return __tsan_create_fiber(0);
#else
  return nullptr;
#endif
}

inline void* current_tsan_fiber() {
#if defined(CUDA_ON_CPU_TSAN)
  return __tsan_get_current_fiber();
#else
  return nullptr;
#endif
}

// TSan forgets accesses of destroyed threads and then misses races with them. So the last 1024 fibers are kept alive.
inline void destroy_tsan_fiber_later([[maybe_unused]] void* fiber) {
#if defined(CUDA_ON_CPU_TSAN)
  constexpr size_t kKept = 1024;
  static void* kept[kKept];
  static size_t next = 0;
  if (kept[next]) __tsan_destroy_fiber(kept[next]);
  kept[next] = fiber;
  next = (next + 1) % kKept;
#endif
}

}  // namespace cuda_on_cpu
