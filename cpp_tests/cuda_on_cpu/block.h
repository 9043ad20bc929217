// One block of CUDA threads, each a fiber: the running thread, the threads waiting at barriers, and the scheduling.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "fibers.h"

namespace cuda_on_cpu {
// Thrown for a launch that a CUDA device would reject, or whose behavior would be undefined.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};
}  // namespace cuda_on_cpu

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  template <class X, class Y = unsigned, class Z = unsigned>
  dim3(X x, Y y = 1, Z z = 1) : x(checked(x)), y(checked(y)), z(checked(z)) {}
  dim3() : dim3(1u) {}

 private:
  // nvcc silently truncates a 64-bit size to 32 bits.
  template <class N>
  static unsigned checked(N n) {
    if (n < N(0) || uint64_t(n) > UINT32_MAX) throw cuda_on_cpu::Fault("dim3 of " + std::to_string(n));
    return unsigned(n);
  }
};

namespace cuda_on_cpu {

constexpr unsigned kWarp = 32, kMaxThreads = 1024;

// A call of a barrier or collective in a kernel. id distinguishes calls on the same line.
struct Site {
  const char* op;
  const char* file;
  int line;
  int id;
};

// A barrier or collective: threads wait until all have arrived. The values that threads bring are double-buffered: a
// fast thread can reach the next round before a slow one has read the values of this round, but not the round after
// that.
struct Meeting {
  unsigned first = 0, members = 0;  // participants are the threads of [first, first + members)
  uint32_t mask = 0xffffffff;       // whose lanes are in the mask
  unsigned expected = 0, arrived = 0, round = 0;
  Site site{};
  unsigned site_thread = 0;
  uint32_t took_part[2] = {0, 0};
  uint64_t value[2][kWarp];
  uint64_t clock[2];  // only their addresses are used, as TSan synchronization objects
};

struct Thread {
  Fiber fiber;
  std::unique_ptr<Stack> stack;
  uint3 index{};
  unsigned flat = 0, lane = 0, warp = 0;
  const Meeting* waiting = nullptr;
  bool returned = false;
};

struct SharedArray {
  const void* key;
  std::unique_ptr<char[]> memory;
  size_t bytes;
};

struct Random {
  uint64_t state;
  explicit Random(unsigned seed) : state(0x9e3779b97f4a7c15u * (uint64_t(seed) + 1)) {}
  size_t below(size_t n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return size_t(state >> 11) % n;
  }
  template <class T>
  void shuffle(std::vector<T>& v) {
    for (size_t i = v.size(); i > 1; --i) std::swap(v[i - 1], v[below(i)]);
  }
};

// A kernel with its arguments.
struct Launch {
  std::string kernel;
  dim3 grid, block;
  size_t dynamic_shared_bytes;
  void (*call)(const void* arguments);
  const void* arguments;
  bool newest_first;  // run the thread that became ready last, so that one warp runs as far ahead as possible
  Random random;
  size_t most_shared_bytes = 0;  // static plus dynamic; set by check()
};

struct Block {
  Launch& launch;
  uint3 index;
  unsigned size;
  unsigned returned = 0;
  std::vector<Thread*> ready;
  Meeting barrier;
  std::vector<std::vector<std::unique_ptr<Meeting>>> warp_meetings;  // per warp, one for each mask
  std::vector<SharedArray> shared;
  std::string error;

  Block(Launch& launch, uint3 index, unsigned size) : launch(launch), index(index), size(size) {
    barrier.members = barrier.expected = size;
    warp_meetings.resize((size + kWarp - 1) / kWarp);
  }
};

inline unsigned seed = 0;  // determines the order of blocks and threads, with that of the process
// AUTOML_EXT_CUDA_SEED: gives all launches of the process other orders.
inline unsigned process_seed() {
  static const char* const text = std::getenv("AUTOML_EXT_CUDA_SEED");
  return text ? unsigned(std::atoi(text)) : 0;
}
inline Block* block = nullptr;
inline Thread* self = nullptr;
inline Fiber host;
inline Thread threads[kMaxThreads];  // the threads of the block; stacks are reused by the next block

inline std::string name(uint3 i) {
  return std::to_string(i.x) + (i.y || i.z ? "," + std::to_string(i.y) + "," + std::to_string(i.z) : "");
}

inline std::string name(const Site& site) {
  const std::string file = site.file;
  return std::string(site.op) + " at " + file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line);
}

// Describes the running thread, for messages.
inline std::string here() {
  return block->launch.kernel + ", block " + name(block->index) + ", thread " + name(self->index) + ": ";
}

// Thrown in waiting threads to end them after another thread has failed.
struct Abandoned {};

[[noreturn]] inline void fail(const std::string& what) { throw Fault(here() + what); }

// Makes the threads that wait at the meeting (null: at any meeting) ready.
inline void wake(unsigned first, unsigned members, const Meeting* meeting = nullptr) {
  for (unsigned i = first; i < first + members; ++i) {
    Thread& thread = threads[i];
    if (!thread.waiting || (meeting && thread.waiting != meeting)) continue;
    thread.waiting = nullptr;
    block->ready.push_back(&thread);
  }
}

// The running thread arrives at the meeting and waits for the others. Returns the index of this round's buffer.
inline unsigned meet(Meeting& meeting, const Site& site, bool orders_memory, unsigned lane, uint64_t value) {
  const unsigned round = meeting.round & 1;
  if (meeting.arrived == 0) {
    meeting.site = site;
    meeting.site_thread = self->flat;
    meeting.took_part[round] = 0;
  } else if (meeting.site.id != site.id || meeting.site.line != site.line) {
    fail(name(site) + " conflicts with " + name(meeting.site) + " of thread " +
         name(threads[meeting.site_thread].index));
  }
  meeting.value[round][lane] = value;
  meeting.took_part[round] |= 1u << lane;
  if (orders_memory) release(&meeting.clock[round]);
  if (++meeting.arrived < meeting.expected) {
    self->waiting = &meeting;
    switch_to(self->fiber, host);
    if (!block->error.empty()) throw Abandoned();
  } else {
    meeting.arrived = 0;
    ++meeting.round;
    wake(meeting.first, meeting.members, &meeting);
  }
  if (orders_memory) acquire(&meeting.clock[round]);
  return round;
}

inline void run_kernel() {
  try {
    block->launch.call(block->launch.arguments);
  } catch (const std::exception& e) {
    Quiet quiet;
    if (block->error.empty()) block->error = e.what();
  } catch (const Abandoned&) {
  }
  Quiet quiet;
  release(&block->launch);  // the host synchronizes with the end of the kernel
  self->returned = true;
  ++block->returned;
}

// Entry function of a fiber. It never returns, because a fiber has no caller.
CUDA_ON_CPU_UNCHECKED inline void thread_main() {
  arrive_from(host);
  run_kernel();
  switch_to(self->fiber, host, true);
}

inline void start_threads(unsigned size, dim3 dim) {
  for (unsigned i = 0; i < size; ++i) {
    Thread& thread = threads[i];
    if (!thread.stack) thread.stack = std::make_unique<Stack>();
    thread.flat = i;
    thread.lane = i % kWarp;
    thread.warp = i / kWarp;
    thread.index = {i % dim.x, i / dim.x % dim.y, i / dim.x / dim.y};
    thread.waiting = nullptr;
    thread.returned = false;
    prepare(thread.fiber, *thread.stack, thread_main);
    block->ready.push_back(&thread);
  }
  block->launch.random.shuffle(block->ready);
}

inline void run_ready() {
  std::vector<Thread*>& ready = block->ready;
  while (!ready.empty()) {
    if (!block->launch.newest_first) std::swap(ready[block->launch.random.below(ready.size())], ready.back());
    self = ready.back();
    ready.pop_back();
    switch_to(host, self->fiber);
  }
}

// No thread is ready, but some wait. Returns a message that names a waiting thread and one that it waits for.
inline std::string deadlock() {
  const auto waits = [](unsigned i) { return threads[i].waiting; };
  unsigned waiter = 0;
  while (!waits(waiter)) ++waiter;
  const Meeting& meeting = *waits(waiter);
  self = &threads[waiter];
  const std::string text = here() + name(meeting.site) + " waits forever";
  for (unsigned i = meeting.first; i < meeting.first + meeting.members; ++i) {
    const Thread& absent = threads[i];
    if (absent.waiting == &meeting || !(meeting.mask >> absent.lane & 1)) continue;
    return text + " for thread " + name(absent.index) +
           (absent.returned ? ", which has returned" : ", which waits at " + name(absent.waiting->site));
  }
  return text;
}

inline void run_block(Launch& launch, uint3 index) {
  const dim3 dim = launch.block;
  const unsigned size = dim.x * dim.y * dim.z;
  // Newly allocated on the heap, so that TSan sees no memory shared with the previous block.
  const auto owner = std::make_unique<Block>(launch, index, size);
  block = owner.get();
  start_threads(size, dim);
  run_ready();
  if (block->returned < size) {
    if (block->error.empty()) block->error = deadlock();
    wake(0, size);
    run_ready();
  }
  for (unsigned i = 0; i < size; ++i) destroy_tsan_fiber_later(threads[i].fiber.tsan_fiber);
  block = nullptr;
  self = nullptr;
  if (owner->error.empty()) return;
  acquire(&launch);
  throw Fault(owner->error);
}

}  // namespace cuda_on_cpu
