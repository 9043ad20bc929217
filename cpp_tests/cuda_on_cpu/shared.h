// Shared memory: allocated for each block with exactly the requested size, so that ASan detects accesses beyond it. All
// bits are set until written: NaN as a float, -1 as an integer.
#pragma once
#include <cstring>

#include "block.h"

namespace cuda_on_cpu {

constexpr size_t kMaxStaticSharedBytes = 48 * 1024;
inline size_t max_shared_bytes = 232448;  // the limit of an H100; tests may change it

inline char* allocate_shared(const void* key, size_t bytes) {
  SharedArray& array = block->shared.emplace_back(SharedArray{key, nullptr, bytes});
  array.memory.reset(new char[bytes]);  // aligned to 16 bytes, as KERNEL_DYNAMIC_SHARED is
  std::memset(array.memory.get(), 0xff, bytes);
  return array.memory.get();
}

inline char* find_shared(const void* key) {
  for (SharedArray& array : block->shared)
    if (array.key == key) return array.memory.get();
  return nullptr;
}

// key: the address of a static variable of the kernel, unique for each declaration and template instance.
template <class T>
T* static_shared(const void* key, size_t n) {
  static_assert(alignof(T) <= 16);
  Quiet quiet;
  char* memory = find_shared(key);
  if (!memory) {
    memory = allocate_shared(key, n * sizeof(T));
    size_t bytes = 0;
    for (const SharedArray& array : block->shared) bytes += array.key ? array.bytes : 0;
    if (bytes > kMaxStaticSharedBytes || bytes + block->launch.dynamic_shared_bytes > block->launch.most_shared_bytes)
      fail(std::to_string(bytes) + " bytes of static shared memory exceed the limit, dynamic included");
  }
  return reinterpret_cast<T*>(memory);
}

// The dynamic shared memory of the launch; its key is null.
template <class T>
T* dynamic_shared() {
  static_assert(alignof(T) <= 16);
  Quiet quiet;
  char* memory = find_shared(nullptr);
  if (!memory) memory = allocate_shared(nullptr, block->launch.dynamic_shared_bytes);
  return reinterpret_cast<T*>(memory);
}

}  // namespace cuda_on_cpu
