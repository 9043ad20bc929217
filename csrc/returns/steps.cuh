// A column of a trajectory, for the CUDA kernels over time.
#pragma once
#include "../common/cuda/types.cuh"
#include "windows.inc"

namespace automl_ext {

// A bool is true if its byte is not 0.
__device__ __forceinline__ uint32_t flag_at(const uint8_t* flags, int64_t at, uint32_t otherwise) {
  return flags ? uint32_t(flags[at] != 0) : otherwise;
}
__device__ __forceinline__ uint32_t valid_at(const Trajectory& x, int64_t at) { return flag_at(x.valid, at, 1); }

// What scans.inc and windows.inc compute with: one column, stored as T. Masks are 0 or 1.
template <class T, bool carries_ = false>
struct Column {
  static constexpr bool carries = carries_;
  using Scalar = Compute<T>;
  using Value = Compute<T>;
  using Mask = uint32_t;
  using Bytes = uint32_t;
  using Index = int64_t;
  struct Place {
    int64_t t, at;
    bool stores;
    int64_t ahead = 0;  // elements from `at` to the one to prefetch; 0: none
  };

  __device__ __forceinline__ static Mask mask(Bytes byte) { return byte; }
  __device__ __forceinline__ static bool any(Mask mask) { return mask; }
  template <class V>
  __device__ __forceinline__ static V choose(Mask mask, V a, V b) {
    return mask ? a : b;
  }
  __device__ __forceinline__ static Mask at_least(Value a, Value b) { return a >= b; }
  __device__ __forceinline__ static Value exp(Value value) { return ::exp(value); }

  // Computed without branches, so that no branch waits for a load.
  __device__ __forceinline__ static scans::Flags<Column> flags(const Trajectory& x, int64_t at, uint32_t valid,
                                                               uint32_t next_valid) {
    return scans::flags_of<Column>(flag_at(x.terminated, at, 0), flag_at(x.truncated, at, 0), valid, next_valid,
                                   carries && at >= (x.steps - 1) * x.columns);
  }
  __device__ __forceinline__ static scans::Flags<Column> flags(const Trajectory& x, const Place& place) {
    const uint32_t next_valid = place.t + 1 >= x.steps ? 0u : valid_at(x, place.at + x.columns);
    return flags(x, place.at, valid_at(x, place.at), next_valid);
  }
  __device__ __forceinline__ static Value load(const void* p, const Place& place) {
    return automl_ext::load<T>(p, place.at);
  }
  // Of the next step; at the last step, of that.
  __device__ __forceinline__ static Value load_next(const Trajectory& x, const void* p, const Place& place) {
    return automl_ext::load<T>(p, place.at >= (x.steps - 1) * x.columns ? place.at : place.at + x.columns);
  }
  // Into the L2 cache.
  __device__ __forceinline__ static void prefetch([[maybe_unused]] const void* p, [[maybe_unused]] const Place& place) {
#ifdef __CUDACC__
    if (place.ahead) asm volatile("prefetch.global.L2 [%0];" ::"l"(static_cast<const T*>(p) + place.at + place.ahead));
#endif
  }
  __device__ __forceinline__ static Value read(const void* p, const Place& place) {
    prefetch(p, place);
    return load(p, place);
  }
  // The value is computed outside the branch.
  __device__ __forceinline__ static void write(void* p, const Place& place, Value value) {
    const T narrowed = narrow<T>(value);
    if (place.stores) static_cast<T*>(p)[place.at] = narrowed;
  }

  __device__ __forceinline__ static Index index(int64_t k) { return k; }
  __device__ __forceinline__ static void write_last(const Trajectory& x, const Place& place, Index length) {
    x.last[place.at] = place.t + length;
  }
};

}  // namespace automl_ext
