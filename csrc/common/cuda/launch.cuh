// Grids, blocks and teams for rows.
#pragma once
#include <algorithm>
#include <atomic>
#include <type_traits>

#include "../columns.h"
#include "team.cuh"
#include "types.cuh"

namespace automl_ext {

constexpr int kShortRowThreads = 128;
constexpr int64_t kShortRow = 1024;  // largest number of elements of a row that a warp processes

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

// Calls launch(Int<lanes>, Int<items>) with a team size and registers per thread for rows of n ≤ lanes·items elements, at most
// 512.
template <class Launch>
void for_short_rows(int64_t n, const Launch& launch) {
  if (n <= 4) return launch(Int<1>(), Int<4>());
  if (n <= 8) return launch(Int<1>(), Int<8>());
  if (n <= 32) return launch(Int<8>(), Int<4>());
  if (n <= 128) return launch(Int<32>(), Int<4>());
  if (n <= 256) return launch(Int<32>(), Int<8>());
  return launch(Int<32>(), Int<16>());
}

template <int warps>
dim3 columns_grid(int64_t columns) {
  return grid_of(blocks(columns, ColumnTeam<warps>::columns));
}

// Calls launch(Int<warps>, Int<items>) with a team size and registers per thread for columns of n ≤ `longest` elements. 32
// of float, 16 of double, or 16 beside noise fit the registers.
template <int64_t longest, class Launch>
void for_columns(int64_t n, const Launch& launch) {
  static_assert(longest == 128 || longest == 512, "in registers");
  if (n <= 8) return launch(Int<1>(), Int<8>());
  if constexpr (longest == 128) {
    n <= 32 ? launch(Int<4>(), Int<8>()) : launch(Int<8>(), Int<16>());
  } else {
    if (n <= 32) return launch(Int<1>(), Int<32>());
    n <= 128 ? launch(Int<4>(), Int<32>()) : launch(Int<16>(), Int<32>());
  }
}
// Calls launch(Int<warps>) with a team size for columns of n elements that are read several times.
template <class Launch>
void for_read_columns(int64_t n, const Launch& launch) {
  n <= 32 ? launch(Int<1>()) : launch(Int<8>());
}

// The block size for one row per block.
inline dim3 long_row_block(int64_t n) { return dim3(n <= 4096 ? 256 : kRowThreads); }

// The value of an attribute of the current device; 0 after an error, which cudaGetLastError reports.
inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  const bool known =
      cudaGetDevice(&device) == cudaSuccess && cudaDeviceGetAttribute(&value, attribute, device) == cudaSuccess;
  return known ? value : 0;
}

// Like grid_of, with at most as many blocks as run at once, at `per_processor` blocks on each multiprocessor: for kernels
// whose blocks begin with work that does not depend on the item.
inline dim3 resident_grid(int64_t count, int per_processor) {
  const int64_t most = int64_t(device_attribute(cudaDevAttrMultiProcessorCount)) * per_processor;
  return grid_of(std::min(count, std::max<int64_t>(most, 1)));
}

// More than the static shared memory of any kernel, and of those with columns.
constexpr int64_t kStaticSharedMemory = 6144, kStaticColumnMemory = 16384;

// The largest dynamic shared memory of a block on the current device.
inline int64_t shared_memory_limit(int64_t static_bytes = kStaticSharedMemory) {
  return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin) - static_bytes;
}

// The devices on which a kernel may use all shared memory.
struct SharedMemoryAllowance {
  std::atomic<uint64_t> devices{0};
};
// More than 48 KB in total must be requested from the driver, once per kernel and device. The request is always for the
// limit. Returns false after an error, which cudaGetLastError reports; then do not launch.
template <class Kernel>
bool allow_shared_memory(Kernel* kernel, int64_t bytes, SharedMemoryAllowance& allowance,
                         int64_t static_bytes = kStaticSharedMemory) {
  if (bytes <= 48 * 1024 - static_bytes) return true;
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return false;
  const uint64_t bit = device < 64 ? uint64_t(1) << device : 0;
  if (allowance.devices.load() & bit) return true;
  const int limit = int(shared_memory_limit(static_bytes));
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, limit) != cudaSuccess) return false;
  allowance.devices.fetch_or(bit);
  return true;
}

}  // namespace automl_ext
