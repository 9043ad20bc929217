// Kernels with one fault each; with kOk they have none.
#pragma once
#include "../../csrc/common/cuda/portable.h"

namespace automl_ext {

// ---- Faults for which the launch throws.

template <bool kOk>
__global__ void divergent_barrier(int* out) {
  if (kOk || threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

template <bool kOk>
__global__ void returns_before_barrier(int* out) {
  if (!kOk && threadIdx.x == 5) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

template <bool kOk>
__global__ void shuffle_against_barrier(int* out) {
  if (kOk || threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffffff, 1, 1);
  __syncthreads();
}

template <bool kOk>
__global__ void divergent_shuffle(int* out) {
  if (kOk || threadIdx.x % 2) {
    out[threadIdx.x] = __shfl_xor_sync(0xffffffff, 1, 1);
  } else {
    out[threadIdx.x] = __shfl_xor_sync(0xffffffff, 1, 1);
  }
}

template <bool kOk>
__global__ void reads_absent_lane(int* out) {
  if (kOk || threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(kOk ? 0xffffffff : 0xffff, 1, 16);
}

template <bool kOk>
__global__ void outside_its_mask(int* out) {
  out[threadIdx.x] = __shfl_sync(kOk ? 0xffffffff : 0x7fffffff, 1, 0);
}

template <bool kOk>
__global__ void odd_width(int* out) {
  out[threadIdx.x] = __shfl_sync(0xffffffff, 1, 0, kOk ? 8 : 12);
}

template <bool kOk>
__global__ void large_static_shared(int* out) {
  KERNEL_SHARED(int, large, kOk ? 12 * 1024 : 12 * 1024 + 1);
  large[threadIdx.x] = 1;
  out[threadIdx.x] = large[threadIdx.x];
}

// Launched with 48 KiB of dynamic shared memory, without cudaFuncSetAttribute.
template <bool kOk>
__global__ void static_beside_dynamic(int* out) {
  KERNEL_DYNAMIC_SHARED(int, large);
  large[threadIdx.x] = 1;
  if (!kOk) {
    KERNEL_SHARED(int, small, 32);
    small[threadIdx.x] = large[threadIdx.x];
  }
  out[threadIdx.x] = large[threadIdx.x];
}

// ---- Faults that change the results.

template <class T>
__global__ void reads_unwritten_shared(T* out) {
  KERNEL_SHARED(T, half_written, 64);
  KERNEL_DYNAMIC_SHARED(T, unwritten);
  if (threadIdx.x < 32) half_written[threadIdx.x] = 1;
  __syncthreads();
  out += int64_t(blockIdx.x) * 128;
  out[threadIdx.x] = half_written[threadIdx.x];
  out[64 + threadIdx.x] = unwritten[threadIdx.x];
}

// ---- Faults that ASan reports.

template <bool kOk>
__global__ void beyond_static_shared(int* out) {
  KERNEL_SHARED(int, numbers, kOk ? 64 : 63);
  numbers[threadIdx.x] = 1;
  out[threadIdx.x] = numbers[threadIdx.x];
}

__global__ void fills_dynamic_shared(int* out) {
  KERNEL_DYNAMIC_SHARED(int, numbers);
  numbers[threadIdx.x] = 1;
  out[threadIdx.x] = numbers[threadIdx.x];
}

template <bool kOk>
__global__ void beyond_global(int* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n || !kOk) out[i] = 1;
}

// ---- Faults that TSan reports.

template <bool kOk>
__global__ void no_barrier_between_warps(int* out) {
  KERNEL_SHARED(int, numbers, 1024);
  numbers[threadIdx.x] = threadIdx.x;
  if (kOk) __syncthreads();
  out[threadIdx.x] = numbers[blockDim.x - 1 - threadIdx.x];
}

// The next round is written while slow threads still read the last one.
template <bool kOk>
__global__ void no_barrier_before_next_round(int* out) {
  KERNEL_SHARED(int, number, 1);
  int sum = 0;
  for (int i = 0; i < 3; ++i) {
    if (threadIdx.x == 0) number[0] = i;
    __syncthreads();
    sum += number[0];
    if (kOk) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

template <bool kOk>
__global__ void no_syncwarp(int* out) {
  KERNEL_SHARED(int, numbers, 32);
  numbers[threadIdx.x] = threadIdx.x;
  if (kOk) __syncwarp();
  out[threadIdx.x] = numbers[31 - threadIdx.x];
}

template <bool kOk>
__global__ void shuffle_for_syncwarp(int* out) {
  KERNEL_SHARED(int, numbers, 32);
  numbers[threadIdx.x] = threadIdx.x;
  const int one = __shfl_sync(0xffffffff, 1, 0);
  if (kOk) __syncwarp();
  out[threadIdx.x] = one + numbers[31 - threadIdx.x];
}

template <bool kOk>
__global__ void syncwarp_between_warps(int* out) {
  KERNEL_SHARED(int, numbers, 64);
  numbers[threadIdx.x] = threadIdx.x;
  if (kOk) __syncthreads();
  else __syncwarp();
  out[threadIdx.x] = numbers[63 - threadIdx.x];
}

// The barriers must not order accesses of different blocks.
template <bool kOk>
__global__ void blocks_write_one_place(int* out) {
  __syncthreads();
  if (threadIdx.x == blockIdx.x) out[kOk ? blockIdx.x : 0] = 1;
  __syncthreads();
}

template <bool kOk>
__global__ void adds_without_atomic(int* out) {
  if (kOk) atomicAdd(out, 1);
  else ++*out;
}

}  // namespace automl_ext
