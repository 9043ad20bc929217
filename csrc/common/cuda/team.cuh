// Teams: the threads that share a row, and their reductions. Every thread of the team gets the result, computed in a fixed
// order. All threads of the warp (WarpTeam) or block (BlockTeam) must take part in every call; a loop around a reduction
// must use `any` as its condition.
#pragma once
#include "portable.h"

namespace automl_ext {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kRowThreads = 512;  // most of a block for one row: each thread may have 128 registers

// NaN counts as the largest.
template <class V>
__device__ __forceinline__ V larger(V a, V b) {
  return a > b || a != a ? a : b;
}
template <class V>
__device__ __forceinline__ V smaller(V a, V b) {
  return a < b ? a : b;
}

// Batcher's odd-even merge sort of a power of two of numbers: 19 exchanges for eight.
template <class V, int count>
__device__ __forceinline__ void sort_decreasing(V (&values)[count]) {
#pragma unroll
  for (int sorted = 1; sorted < count; sorted *= 2) {
#pragma unroll
    for (int distance = sorted; distance > 0; distance /= 2) {
#pragma unroll
      for (int i = 0; i + distance < count; ++i) {
        const int start = distance % sorted, j = i + distance;
        if (i < start || (i - start) / distance % 2 || i / (2 * sorted) != j / (2 * sorted)) continue;
        const V a = values[i], b = values[j];
        values[i] = fmax(a, b);
        values[j] = fmin(a, b);
      }
    }
  }
}

// kLanes adjacent lanes of a warp.
template <int kLanes>
struct WarpTeam {
  static_assert(kLanes > 0 && kLanes <= 32 && (kLanes & (kLanes - 1)) == 0, "a power of two up to 32");
  // Number of additions per term of a sum.
  static constexpr int depth = kLanes < 2 ? 0 : kLanes < 4 ? 1 : kLanes < 8 ? 2 : kLanes < 16 ? 3 : kLanes < 32 ? 4 : 5;

  __device__ __forceinline__ int rank() const { return int(threadIdx.x) % kLanes; }
  __device__ __forceinline__ int size() const { return kLanes; }
  // The place in memory of element i of a row; again() and ends(): see ColumnTeam.
  __device__ __forceinline__ int64_t place(int i) const { return i; }
  __device__ __forceinline__ const WarpTeam& again() const { return *this; }
  __device__ __forceinline__ bool ends(int, int) const { return false; }

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
  // Sums the values and reduces `least` to the smallest.
  template <class V, int count, class C>
  __device__ __forceinline__ void sum(V (&values)[count], C& least) const {
    sum(values);
    least = smallest(least);
  }
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
  // The sum over the lanes up to this one.
  __device__ __forceinline__ int prefix_sum(int value) const {
#pragma unroll
    for (int distance = 1; distance < kLanes; distance *= 2) {
      const int before = __shfl_up_sync(kAllLanes, value, distance, kLanes);
      value += rank() < distance ? 0 : before;
    }
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
  __device__ __forceinline__ int64_t place(int i) const { return i; }
  __device__ __forceinline__ const BlockTeam& again() const { return *this; }
  __device__ __forceinline__ bool ends(int, int) const { return false; }

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
  // In one exchange between the warps.
  template <class V, int count, class C>
  __device__ __forceinline__ void sum(V (&values)[count], C& least) const {
    KERNEL_SHARED(V, of_warps, 32 * count);
    KERNEL_SHARED(C, least_of_warps, 32);
    const WarpTeam<32> warp;
    warp.sum(values, least);
    __syncthreads();  // all threads have read the values of an earlier call
    if (warp.rank() == 0) {
#pragma unroll
      for (int i = 0; i < count; ++i) of_warps[32 * i + rank() / 32] = values[i];
      least_of_warps[rank() / 32] = least;
    }
    __syncthreads();
    const bool has = warp.rank() < size() / 32;
#pragma unroll
    for (int i = 0; i < count; ++i) values[i] = has ? of_warps[32 * i + warp.rank()] : V(0);
    least = least_of_warps[has ? warp.rank() : 0];
    warp.sum(values, least);
  }
  // Divides numbers among the threads: `count` of them to each, in the order of ranks.
  struct Share {
    int first, total;
  };
  __device__ __forceinline__ Share share(int count) const {
    KERNEL_SHARED(int, of_warps, 32);
    const WarpTeam<32> warp;
    const int to_here = warp.prefix_sum(count);
    __syncthreads();  // all threads have read the values of an earlier call
    if (warp.rank() == 31) of_warps[rank() / 32] = to_here;
    __syncthreads();
    const int to_warp = warp.prefix_sum(warp.rank() < size() / 32 ? of_warps[warp.rank()] : 0);
    const int before = rank() < 32 ? 0 : __shfl_sync(kAllLanes, to_warp, rank() / 32 - 1);
    return {before + to_here - count, __shfl_sync(kAllLanes, to_warp, 31)};
  }
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

// The same for a number of threads that the compiler knows.
template <int kThreads>
struct FixedBlockTeam : BlockTeam {
  __device__ __forceinline__ int size() const { return kThreads; }
};

// The threads that share a column: a row whose elements are `stride` apart in memory. Adjacent lanes have adjacent columns,
// so that a warp accesses adjacent elements. Each warp of the block has a share of 32 columns; a single one has all elements
// of its columns, and the block consists of any number of such teams.
template <int kWarps>
struct ColumnTeam {
  static_assert(kWarps == 1 || kWarps % 4 == 0, "warps in four chains");
  static constexpr int depth = kWarps == 1 ? 0 : kWarps / 4 + 1;
  static constexpr int threads = kWarps == 1 ? 128 : 32 * kWarps;  // of a block
  static constexpr int columns = threads / kWarps;                 // of a block
  const int stride;

  __device__ __forceinline__ int rank() const { return int(threadIdx.x) / columns; }
  __device__ __forceinline__ int size() const { return kWarps; }
  __device__ __forceinline__ int column() const { return int(threadIdx.x) % columns; }
  __device__ __forceinline__ int64_t place(int i) const { return int64_t(i) * stride; }
  // The same team, which nvcc does not know, or else it would keep the places of all elements in registers from loads to stores.
  __device__ __forceinline__ ColumnTeam again() const {
    int same = stride;
#ifdef __CUDACC__
    asm volatile("" : "+r"(same));
#endif
    return {same};
  }
  // Returns true if no thread has a j-th element of a column of n. The branch separates a few stores from the next: nvcc would
  // compute all values and addresses before the first one.
  __device__ __forceinline__ bool ends(int j, int n) const { return j * kWarps >= n; }
  // The place of the first element of a column of n.
  __device__ __forceinline__ int64_t start(int64_t column, int64_t n) const {
    const int64_t outer = column / stride;
    return outer * (n - 1) * stride + column;
  }

  template <class V, int count>
  __device__ __forceinline__ void sum(V (&values)[count]) const {
    reduce(values, [](int, V a, V b) { return a + b; });
  }
  template <class V>
  __device__ __forceinline__ V sum(V value) const {
    V values[1] = {value};
    sum(values);
    return values[0];
  }
  // In one exchange between the warps.
  template <class V, int count>
  __device__ __forceinline__ void sum(V (&values)[count], V& least) const {
    V all[count + 1];
#pragma unroll
    for (int i = 0; i < count; ++i) all[i] = values[i];
    all[count] = least;
    reduce(all, [](int i, V a, V b) { return i < count ? a + b : smaller(a, b); });
#pragma unroll
    for (int i = 0; i < count; ++i) values[i] = all[i];
    least = all[count];
  }
  template <class V>
  __device__ __forceinline__ V largest(V value) const {
    V values[1] = {value};
    reduce(values, [](int, V a, V b) { return larger(a, b); });
    return values[0];
  }
  template <class V>
  __device__ __forceinline__ V smallest(V value) const {
    V values[1] = {value};
    reduce(values, [](int, V a, V b) { return smaller(a, b); });
    return values[0];
  }
  // All warps of a block have the same columns, and the same conditions.
  __device__ __forceinline__ bool any(bool condition) const { return __any_sync(kAllLanes, condition); }

 private:
  // Combines values[i] of all warps by f(i, a, b), in four chains.
  template <class V, int count, class F>
  __device__ __forceinline__ void reduce(V (&values)[count], const F& f) const {
    if constexpr (kWarps > 1) {
      V* const own = of_warps<V, count>() + column();
      __syncthreads();  // all threads have read the values of an earlier call
#pragma unroll
      for (int i = 0; i < count; ++i) own[(i * kWarps + rank()) * 32] = values[i];
      __syncthreads();
#pragma unroll
      for (int i = 0; i < count; ++i) {
        V parts[4];
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
          const V value = own[(i * kWarps + w) * 32];
          parts[w % 4] = w < 4 ? value : f(i, parts[w % 4], value);
        }
        values[i] = f(i, f(i, parts[0], parts[1]), f(i, parts[2], parts[3]));
      }
    }
  }
  template <class V, int count>
  static __device__ __forceinline__ V* of_warps() {
    KERNEL_SHARED(V, values, 32 * kWarps * count);
    return values;
  }
};

// The blocks of a kernel with columns in registers on a multiprocessor, for 128 registers per thread.
template <int kWarps>
constexpr int kColumnBlocks = 512 / ColumnTeam<kWarps>::threads;

}  // namespace automl_ext
