// Element types: T is the storage type and Compute<T> the compute type: double for double, else float.
#pragma once
#include <cstdlib>
#include <limits>

#include "../half.h"
#include "portable.h"

namespace automl_ext {

template <class T>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <class T>
using Compute = typename ComputeType<T>::type;

__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bfloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

template <class T>
__device__ __forceinline__ T narrow(Compute<T> x) {
  return x;
}

#ifdef __CUDACC__
__device__ __forceinline__ float widen(float16 x) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(x.bits));
  return f;
}
template <>
__device__ __forceinline__ bfloat16 narrow<bfloat16>(float x) {
#if __CUDA_ARCH__ >= 800
  bfloat16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#else
  const uint32_t bits = __float_as_uint(x);
  return {uint16_t(x != x ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
#endif
}
template <>
__device__ __forceinline__ float16 narrow<float16>(float x) {
  float16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
#else
inline float widen(float16 x) { return to_float(x); }
template <>
inline bfloat16 narrow<bfloat16>(float x) {
  return to_bfloat16(x);
}
template <>
inline float16 narrow<float16>(float x) {
  return to_float16(x);
}
#endif

// Loads and stores one element of an untyped array, in the compute type.
template <class T>
__device__ __forceinline__ Compute<T> load(const void* p, int64_t at) {
  return widen(static_cast<const T*>(p)[at]);
}
template <class T>
__device__ __forceinline__ void store(void* p, int64_t at, Compute<T> value) {
  static_cast<T*>(p)[at] = narrow<T>(value);
}
// Selects instead of multiplying, because an ignored value may be NaN.
template <class C>
__device__ __forceinline__ C keep(bool counts, C value) {
  return counts ? value : C(0);
}

template <DType dtype, class T, class Launch>
inline void launch_if_compiled(const Launch& launch) {
  if constexpr (KERNEL_COMPILES(dtype))
    launch(T());
  else
    std::abort();
}

// Calls `launch`, a generic lambda, with a value of the element type.
template <class Launch>
inline void for_dtype(DType dtype, const Launch& launch) {
  switch (dtype) {
    case kFloat64: return launch_if_compiled<kFloat64, double>(launch);
    case kFloat32: return launch_if_compiled<kFloat32, float>(launch);
    case kBFloat16: return launch_if_compiled<kBFloat16, bfloat16>(launch);
    default: return launch_if_compiled<kFloat16, float16>(launch);
  }
}

// The number of elements in a 16-byte load, at most `limit`.
template <class T, int limit>
constexpr int pack_width() {
  constexpr int whole = 16 / int(sizeof(T));
  return whole < limit ? whole : limit;
}
template <class T, int width>
struct alignas(sizeof(T) * width < 16 ? sizeof(T) * width : 16) Pack {
  T values[width];
};
// Stores a pack in one instruction; nvcc emits several if it cannot infer the address space of `to`.
template <class T, int width>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, width>& pack) {
#ifdef __CUDACC__
  if constexpr (sizeof(pack) == 16) {
    uint32_t words[4];
    memcpy(words, &pack, sizeof(words));
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(words[0]),
                 "r"(words[1]), "r"(words[2]), "r"(words[3])
                 : "memory");
    return;
  }
#endif
  *reinterpret_cast<Pack<T, width>*>(to) = pack;
}
// Returns true if consecutive rows of n elements from p on can be accessed in packs.
template <int width, class T>
__device__ __forceinline__ bool packs_fit(const T* p, int64_t n) {
  return n % width == 0 && reinterpret_cast<uintptr_t>(p) % (sizeof(T) * width) == 0;
}

// Constants, because nvcc treats the functions of numeric_limits as host functions.
template <class V>
constexpr V kSmallestNormal = std::numeric_limits<V>::min();
template <class V>
constexpr V kLargest = std::numeric_limits<V>::max();

template <class C>
__device__ __forceinline__ C infinity() {
  return C(INFINITY);
}
template <class C>
__device__ __forceinline__ C not_a_number() {
  return C(NAN);
}

}  // namespace automl_ext
