// Reference conversions of the element types (exact, slow), their epsilons, and random numbers.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "../../csrc/common/dtype.h"

namespace automl_ext {

// A 16-bit IEEE format, implemented from its definition: the reference for the conversions of the kernels.
template <int mantissa_bits>
struct HalfFormat {
  static constexpr int exponent_bits = 15 - mantissa_bits, smallest = 2 - (1 << (exponent_bits - 1));
  static constexpr uint16_t infinity = uint16_t(((1 << exponent_bits) - 1) << mantissa_bits);

  static double decode(uint16_t bits) {
    const int exponent = (bits & 0x7fff) >> mantissa_bits, fraction = bits & ((1 << mantissa_bits) - 1);
    double value;
    if ((bits & 0x7fff) >= infinity)
      value = fraction ? std::nan("") : std::numeric_limits<double>::infinity();
    else if (exponent == 0)
      value = std::ldexp(fraction, smallest - mantissa_bits);
    else
      value = std::ldexp(fraction + (1 << mantissa_bits), smallest + exponent - 1 - mantissa_bits);
    return bits & 0x8000 ? -value : value;
  }
  static uint16_t encode(double x) {  // rounds to nearest, ties to even
    const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    if (x != x) return infinity + 1;
    if (std::isinf(x)) return sign | infinity;
    if (x == 0) return sign;
    const int exponent = std::ilogb(x) > smallest ? std::ilogb(x) : smallest;
    if (exponent > 1 - smallest) return sign | infinity;
    const int64_t quanta = int64_t(std::nearbyint(std::ldexp(std::fabs(x), mantissa_bits - exponent)));
    return uint16_t(sign | (((exponent - smallest) << mantissa_bits) + quanta));
  }
};

template <class T>
struct Element;
template <>
struct Element<double> {
  using Compute = double;
  static constexpr DType dtype = kFloat64;
  static constexpr double epsilon = 0x1p-52;
  static constexpr const char* name = "float64";
  static double decode(double x) { return x; }
  static double encode(double x) { return x; }
};
template <>
struct Element<float> {
  using Compute = float;
  static constexpr DType dtype = kFloat32;
  static constexpr double epsilon = 0x1p-23;
  static constexpr const char* name = "float32";
  static double decode(float x) { return x; }
  static float encode(double x) { return float(x); }
};
template <>
struct Element<bfloat16> {
  using Compute = float;
  static constexpr DType dtype = kBFloat16;
  static constexpr double epsilon = 0x1p-7;
  static constexpr const char* name = "bfloat16";
  static double decode(bfloat16 x) { return HalfFormat<7>::decode(x.bits); }
  static bfloat16 encode(double x) { return {HalfFormat<7>::encode(x)}; }
};
template <>
struct Element<float16> {
  using Compute = float;
  static constexpr DType dtype = kFloat16;
  static constexpr double epsilon = 0x1p-10;
  static constexpr const char* name = "float16";
  static double decode(float16 x) { return HalfFormat<10>::decode(x.bits); }
  static float16 encode(double x) { return {HalfFormat<10>::encode(x)}; }
};

template <class T>
std::vector<T> encoded(const std::vector<double>& values) {
  std::vector<T> out(values.size());
  for (size_t i = 0; i < values.size(); ++i) out[i] = Element<T>::encode(values[i]);
  return out;
}
template <class T>
std::vector<double> decoded(const std::vector<T>& values) {
  std::vector<double> out(values.size());
  for (size_t i = 0; i < values.size(); ++i) out[i] = Element<T>::decode(values[i]);
  return out;
}

// The distance between adjacent numbers at x in a type with this epsilon. `smallest`: exponent of its smallest normal.
inline double ulp(double x, double epsilon, int smallest) {
  const double lowest = std::ldexp(1.0, smallest), magnitude = std::fabs(x) > lowest ? std::fabs(x) : lowest;
  return std::ldexp(epsilon, std::ilogb(magnitude));
}
template <class T>
double ulp(double x) {
  constexpr int smallest = std::is_same_v<T, double> ? -1022 : std::is_same_v<T, float16> ? -14 : -126;
  return ulp(x, Element<T>::epsilon, smallest);
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || !std::memcmp(a.data(), b.data(), a.size() * sizeof(T)));
}

struct Random {  // splitmix64
  uint64_t state;
  uint64_t bits() {
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  double uniform() { return double(bits() >> 11) * 0x1p-53; }  // [0, 1)
  double normal() { return std::sqrt(-2 * std::log1p(-uniform())) * std::cos(6.283185307179586 * uniform()); }
  std::vector<double> normals(int64_t n, double scale = 1) {
    std::vector<double> out(n);
    for (double& x : out) x = scale * normal();
    return out;
  }
};

}  // namespace automl_ext
