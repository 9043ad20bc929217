// Correct kernels. The result of each depends on a part of the emulator.
#pragma once
#include "../../csrc/common/cuda/portable.h"

namespace automl_ext {

template <class T>
__device__ __forceinline__ T warp_sum(T x) {
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffff, x, lanes);
  return x;
}

// Sums of rows of n elements, one block per row.
template <class T>
__global__ void __launch_bounds__(1024) sum_rows(const T* x, T* sums, int64_t n) {
  KERNEL_SHARED(T, parts, 32);
  T sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += x[int64_t(blockIdx.x) * n + i];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : T(0));
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// One warp: the result of each shuffle operation on the values 100 + lane.
__global__ void shuffles(int* out, int width, int by) {
  const int lane = threadIdx.x, x = 100 + lane;
  out[lane] = __shfl_sync(0xffffffff, x, by, width);
  out[32 + lane] = __shfl_xor_sync(0xffffffff, x, by, width);
  out[64 + lane] = __shfl_down_sync(0xffffffff, x, by, width);
  out[96 + lane] = __shfl_up_sync(0xffffffff, x, by, width);
}

template <class T>
__global__ void shuffle_types(T* out, T first) {
  out[threadIdx.x] = __shfl_sync(0xffffffff, threadIdx.x == 0 ? first : T(0), 0);
}

// The two halves of a warp vote independently.
__global__ void votes(unsigned* out) {
  const unsigned lane = threadIdx.x, mask = lane < 16 ? 0xffff : 0xffff0000;
  unsigned result = 0;
  for (unsigned i = 0; i < 3; ++i) {
    result = __ballot_sync(mask, lane % 3 == i);
    __syncwarp(mask);
  }
  out[lane] = result;
  out[32 + lane] = __any_sync(mask, lane == 3) * 2 + __all_sync(mask, lane < 16);
}

// Reverses each block's piece of x.
__global__ void reverse(const int* x, int* out) {
  KERNEL_DYNAMIC_SHARED(int, piece);
  const int64_t start = int64_t(blockIdx.x) * blockDim.x;
  piece[threadIdx.x] = x[start + threadIdx.x];
  __syncthreads();
  out[start + threadIdx.x] = piece[blockDim.x - 1 - threadIdx.x];
}

__global__ void histogram(const int* x, int* counts, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) atomicAdd(&counts[x[i]], 1);
}

// The last block to arrive sums the values written by all blocks.
__global__ void sum_by_last_block(int* parts, unsigned* arrived, int* sum) {
  KERNEL_SHARED(int, last, 1);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = blockIdx.x + 1;
    __threadfence();
    last[0] = atomicAdd(arrived, 1u) == gridDim.x - 1;
    __threadfence();
    if (last[0])
      for (unsigned i = 0; i < gridDim.x; ++i) *sum += parts[i];
  }
}

// The index of each thread in a three-dimensional grid of three-dimensional blocks.
__global__ void places(int* out) {
  const dim3 g = gridDim, b = blockDim;
  const int block = blockIdx.x + g.x * (blockIdx.y + g.y * blockIdx.z);
  const int thread = threadIdx.x + b.x * (threadIdx.y + b.y * threadIdx.z);
  atomicAdd(&out[block * b.x * b.y * b.z + thread], 1 + thread);
}

struct __align__(16) Big {
  char bytes[4080];
};
struct TooBig {
  char bytes[4097];
};
template <class P>
__global__ void takes(P parameter, int* out) {
  if (threadIdx.x == 0) *out = parameter.bytes[1];
}

}  // namespace automl_ext
