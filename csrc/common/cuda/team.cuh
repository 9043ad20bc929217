// Teams: the threads that share a row, and their reductions. Every thread of the team gets the result, computed in a fixed
// order. All threads of the warp (WarpTeam) or block (BlockTeam) must take part in every call; a loop around a reduction
// must use `any` as its condition.
#pragma once
#include "portable.h"

namespace automl_ext {

constexpr unsigned kAllLanes = 0xffffffffu;

// NaN counts as the largest.
template <class V>
__device__ __forceinline__ V larger(V a, V b) {
  return a > b || a != a ? a : b;
}
template <class V>
__device__ __forceinline__ V smaller(V a, V b) {
  return a < b ? a : b;
}

// kLanes adjacent lanes of a warp.
template <int kLanes>
struct WarpTeam {
  static_assert(kLanes > 0 && kLanes <= 32 && (kLanes & (kLanes - 1)) == 0, "a power of two up to 32");
  // Number of additions per term of a sum.
  static constexpr int depth = kLanes < 2 ? 0 : kLanes < 4 ? 1 : kLanes < 8 ? 2 : kLanes < 16 ? 3 : kLanes < 32 ? 4 : 5;

  __device__ __forceinline__ int rank() const { return int(threadIdx.x) % kLanes; }
  __device__ __forceinline__ int size() const { return kLanes; }

  // Sums each of the values over the team.
  template <class V, int count>
  __device__ __forceinline__ void sum(V (&values)[count]) const {
#pragma unroll
    for (int i = 0; i < count; ++i) {
#pragma unroll
      for (int distance = kLanes / 2; distance > 0; distance /= 2)
        values[i] += __shfl_xor_sync(kAllLanes, values[i], distance);
    }
  }
  template <class V>
  __device__ __forceinline__ V sum(V value) const {
    V values[1] = {value};
    sum(values);
    return values[0];
  }
  // Sums counts. The sum of a warp fits an int.
  __device__ __forceinline__ int count(int value) const { return sum(value); }
  template <class V>
  __device__ __forceinline__ V largest(V value) const {
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2)
      value = larger(value, __shfl_xor_sync(kAllLanes, value, distance));
    return value;
  }
  template <class V>
  __device__ __forceinline__ V smallest(V value) const {
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2)
      value = smaller(value, __shfl_xor_sync(kAllLanes, value, distance));
    return value;
  }
  // Returns true if the condition holds in any thread of the warp: all its teams loop together.
  __device__ __forceinline__ bool any(bool condition) const { return __any_sync(kAllLanes, condition); }
};

// All threads of a block; the block consists of whole warps.
struct BlockTeam {
  static constexpr int depth = 10;

  __device__ __forceinline__ int rank() const { return int(threadIdx.x); }
  __device__ __forceinline__ int size() const { return int(blockDim.x); }

  template <class V, int count>
  __device__ __forceinline__ void sum(V (&values)[count]) const {
    KERNEL_SHARED(V, of_warps, 32 * count);
    const WarpTeam<32> warp;
    warp.sum(values);
    __syncthreads();  // all threads have read the values of an earlier call
    if (warp.rank() == 0) {
#pragma unroll
      for (int i = 0; i < count; ++i) of_warps[32 * i + rank() / 32] = values[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < count; ++i) values[i] = warp.rank() < size() / 32 ? of_warps[32 * i + warp.rank()] : V(0);
    warp.sum(values);
  }
  template <class V>
  __device__ __forceinline__ V sum(V value) const {
    V values[1] = {value};
    sum(values);
    return values[0];
  }
  __device__ __forceinline__ double count(int value) const { return sum(double(value)); }
  template <class V>
  __device__ __forceinline__ V largest(V value) const {
    const WarpTeam<32> warp;
    return warp.largest(values_of_warps(warp.largest(value)));
  }
  template <class V>
  __device__ __forceinline__ V smallest(V value) const {
    const WarpTeam<32> warp;
    return warp.smallest(values_of_warps(warp.smallest(value)));
  }
  // Conditions come from reductions, so they are equal in all threads.
  __device__ __forceinline__ bool any(bool condition) const { return condition; }

 private:
  // Distributes the values of the warps over the lanes of every warp. Lanes beyond the number of warps get that of warp 0.
  template <class V>
  __device__ __forceinline__ V values_of_warps(V value) const {
    KERNEL_SHARED(V, of_warps, 32);
    __syncthreads();
    if (rank() % 32 == 0) of_warps[rank() / 32] = value;
    __syncthreads();
    return of_warps[rank() % 32 < size() / 32 ? rank() % 32 : 0];
  }
};

}  // namespace automl_ext
