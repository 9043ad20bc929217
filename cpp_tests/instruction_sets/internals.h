// Internal functions of the kernels of one instruction set, for the tests to call.
#pragma once
#include "../../csrc/instruction_sets/kernel_headers.h"

namespace automl_ext {

template <class C>
struct MathInternals {
  using Map = void (*)(const C* x, C* y, int64_t n);
  Map exp, log, log1p_negated;
  void (*gumbel)(const uint32_t* words, C* noise, int64_t n);  // n: a multiple of 16
};

template <class T>
struct HalfInternals {
  void (*load)(const T* x, float* y, int64_t n);  // vector by vector
  void (*store)(const float* x, T* y, int64_t n);
  float (*widen)(T x);  // a single element
  T (*narrow)(float x);
};

struct Internals {
  void (*philox_two_blocks)(uint64_t seed, uint64_t block, uint32_t* words);  // `block` and the next block
  MathInternals<float> float_math;
  MathInternals<double> double_math;
  HalfInternals<bfloat16> bfloat16_conversions;
  HalfInternals<float16> float16_conversions;
};

namespace simd_default {
extern const Internals internals;
}
#ifdef AUTOML_EXT_X86
namespace simd_avx2 {
extern const Internals internals;
}
namespace simd_avx512 {
extern const Internals internals;
}
#endif

}  // namespace automl_ext
