// Grids, blocks and teams for rows.
#pragma once
#include <algorithm>
#include <type_traits>

#include "types.cuh"

namespace automl_ext {

constexpr int kShortRowThreads = 128;
constexpr int64_t kShortRow = 1024;  // largest number of elements that a warp keeps in registers

template <int value>
using Int = std::integral_constant<int, value>;

// The number of blocks of `per_block` items that hold `count` items.
inline int64_t blocks(int64_t count, int64_t per_block) { return (count + per_block - 1) / per_block; }

// The grid for `count` work items; kernels loop with a stride if the grid is smaller.
inline dim3 grid_of(int64_t count) { return dim3(unsigned(std::min<int64_t>(count, 0x7fffffff))); }

// The grid for short rows with `lanes` threads per row.
inline dim3 short_rows_grid(int64_t rows, int lanes) {
  const int64_t rows_per_block = kShortRowThreads / lanes;
  return grid_of(blocks(rows, rows_per_block));
}

// Calls launch(Int<lanes>, Int<items>) with a team size and registers per thread for rows of n ≤ lanes·items elements.
template <class Launch>
void for_short_rows(int64_t n, const Launch& launch) {
  if (n <= 8) return launch(Int<2>(), Int<4>());
  if (n <= 32) return launch(Int<8>(), Int<4>());
  if (n <= 128) return launch(Int<32>(), Int<4>());
  if (n <= 256) return launch(Int<32>(), Int<8>());
  if (n <= 512) return launch(Int<32>(), Int<16>());
  return launch(Int<32>(), Int<32>());
}

// The block size for one row per block.
inline dim3 long_row_block(int64_t n) { return dim3(n <= 4096 ? 256 : n <= 16384 ? 512 : 1024); }

constexpr int64_t kStaticSharedMemory = 2048;  // more than the static shared memory of any kernel

// The largest dynamic shared memory of a block on the current device.
inline int64_t shared_memory_limit() {
  int device = 0, bytes = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return bytes - kStaticSharedMemory;
}
// More than 48 KB in total must be requested from the driver. The request is always for the limit, so that threads that
// launch the same kernel do not reduce it for each other.
template <class Kernel>
void allow_shared_memory(Kernel* kernel, int64_t bytes) {
  if (bytes > 48 * 1024 - kStaticSharedMemory)
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_memory_limit()));
}

}  // namespace automl_ext
