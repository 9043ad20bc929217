// What the sanitizers must be told about fibers. Every function is empty in a build without the sanitizer.
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

// For the few functions that run while the stack changes.
#define CUDA_ON_CPU_UNCHECKED __attribute__((noinline, no_sanitize("address"), no_sanitize("thread")))

namespace cuda_on_cpu {

// Hides the emulator's own bookkeeping from TSan, which sees fibers as threads and would call it a race. Memory
// allocated or freed meanwhile has no history.
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

// What a thread did before release(clock) happens before what another does after acquire(clock).
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

// TSan drops a race with a thread that is destroyed, the last few apart: they wait here, some blocks' worth of them.
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
