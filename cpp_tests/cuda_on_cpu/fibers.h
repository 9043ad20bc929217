// Fibers: cooperative threads on one CPU thread, each with its own stack. switch_to suspends one and resumes another.
#pragma once
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "sanitizers.h"

// On x86-64 a switch saves the callee-saved registers, which takes a few nanoseconds. swapcontext, used on other
// architectures, makes system calls. longjmp is not an option: _FORTIFY_SOURCE rejects jumps to another stack.
#if defined(__x86_64__) && !defined(CUDA_ON_CPU_UCONTEXT)
asm(R"(
.pushsection .text
.weak cuda_on_cpu_switch_stack
.type cuda_on_cpu_switch_stack, @function
cuda_on_cpu_switch_stack:
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
.size cuda_on_cpu_switch_stack, . - cuda_on_cpu_switch_stack
.popsection
)");
extern "C" void cuda_on_cpu_switch_stack(void** save, void* load);
#else
#define CUDA_ON_CPU_UCONTEXT 1
#include <ucontext.h>
#endif

namespace cuda_on_cpu {

constexpr size_t kStackBytes = 128 * 1024, kGuardBytes = 64 * 1024;

// A stack with a guard page area below it, so that an overflow crashes instead of corrupting memory.
struct Stack {
  char* bottom;

  Stack() {
    void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE) != 0) {
      std::perror("stack of a fiber");
      std::abort();
    }
    bottom = static_cast<char*>(memory) + kGuardBytes;
  }
  ~Stack() { munmap(bottom - kGuardBytes, kGuardBytes + kStackBytes); }
  Stack(const Stack&) = delete;

  // Discards the stack's access history: for TSan, a thread of the next block would race with the last user of the
  // stack.
  void forget_last_thread() {
#if defined(CUDA_ON_CPU_TSAN)
    mmap(bottom, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
#endif
  }
};

struct Fiber {
#if defined(CUDA_ON_CPU_UCONTEXT)
  ucontext_t context;
#else
  void* stack_pointer = nullptr;
#endif
  const void* stack_bottom = nullptr;
  size_t stack_size = 0;
  void* asan_fake_stack = nullptr;
  void* tsan_fiber = nullptr;
};

// Prepares the fiber so that the next switch to it calls `entry`, which must never return.
inline void prepare(Fiber& fiber, Stack& stack, void (*entry)()) {
  stack.forget_last_thread();
  fiber.stack_bottom = stack.bottom;
  fiber.stack_size = kStackBytes;
  fiber.asan_fake_stack = nullptr;
  fiber.tsan_fiber = create_tsan_fiber();
#if defined(CUDA_ON_CPU_UCONTEXT)
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack.bottom;
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#else
  // The initial stack: a null return address for entry, the address of entry, and six saved registers. The null address
  // also aligns the stack as the calling convention requires.
  void** top = reinterpret_cast<void**>(stack.bottom + kStackBytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber.stack_pointer = top;
#endif
}

// Switches from the running fiber `from` to `to`. last: `from` is never resumed.
CUDA_ON_CPU_UNCHECKED inline void switch_to(Fiber& from, Fiber& to, [[maybe_unused]] bool last = false) {
#if defined(CUDA_ON_CPU_ASAN)
  __sanitizer_start_switch_fiber(last ? nullptr : &from.asan_fake_stack, to.stack_bottom, to.stack_size);
#elif defined(CUDA_ON_CPU_TSAN)
  __tsan_switch_to_fiber(to.tsan_fiber, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(CUDA_ON_CPU_UCONTEXT)
  swapcontext(&from.context, &to.context);
#else
  cuda_on_cpu_switch_stack(&from.stack_pointer, to.stack_pointer);
#endif
#if defined(CUDA_ON_CPU_ASAN)
  __sanitizer_finish_switch_fiber(from.asan_fake_stack, nullptr, nullptr);
#endif
}

// Must be called first on a new fiber; `from` is the fiber that switched to it.
CUDA_ON_CPU_UNCHECKED inline void arrive_from([[maybe_unused]] Fiber& from) {
#if defined(CUDA_ON_CPU_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, &from.stack_bottom, &from.stack_size);
#endif
}

}  // namespace cuda_on_cpu
