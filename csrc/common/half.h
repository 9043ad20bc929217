// Conversions of single half-precision numbers, by bit operations.
#pragma once
#include "dtype.h"

namespace automl_ext {

static inline float to_float(bfloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float f;
  __builtin_memcpy(&f, &bits, 4);
  return f;
}
static inline float to_float(float16 x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7fff;
  uint32_t bits;
  float f;
  if (magnitude >= 0x7c00) {  // infinity, NaN
    bits = sign | 0x7f800000 | ((magnitude & 0x3ff) << 13);
  } else if (magnitude >= 0x400) {
    bits = sign | ((magnitude << 13) + (112u << 23));
  } else {  // subnormal: magnitude · 2⁻²⁴, exact
    f = float(int32_t(magnitude)) * 5.9604644775390625e-8f;
    return sign ? -f : f;
  }
  __builtin_memcpy(&f, &bits, 4);
  return f;
}
static inline bfloat16 to_bfloat16(float f) {
  uint32_t bits;
  __builtin_memcpy(&bits, &f, 4);
  if (f != f) return {uint16_t(0x7fc0)};
  return {uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
static inline float16 to_float16(float f) {
  uint32_t bits;
  __builtin_memcpy(&bits, &f, 4);
  const uint16_t sign = uint16_t((bits >> 16) & 0x8000);
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return {uint16_t(sign | 0x7e00)};
  if (bits >= 0x477ff000) return {uint16_t(sign | 0x7c00)};  // rounds to at least 2¹⁶
  if (bits < 0x38800000) {  // subnormal: adding ½ rounds to multiples of 2⁻²⁴, ties to even
    float shifted;
    __builtin_memcpy(&shifted, &bits, 4);
    shifted += 0.5f;
    __builtin_memcpy(&bits, &shifted, 4);
    return {uint16_t(sign | (bits - 0x3f000000))};
  }
  return {uint16_t(sign | ((bits - (112u << 23) + 0xfff + ((bits >> 13) & 1)) >> 13))};
}

}  // namespace automl_ext
