// Conversions of float16 and bfloat16: all bit patterns, all halfway cases; vectors and single elements.
#include <algorithm>
#include <cmath>

#include "../instruction_sets/run.h"
#include "../references/numbers.h"

using namespace automl_ext;

template <class T>
static bool is_nan(T x) {
  return std::isnan(Element<T>::decode(x));
}
static uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

template <class T>
static void test_widen(const HalfInternals<T>& half) {
  std::vector<T> patterns(65536);
  for (int i = 0; i < 65536; ++i) patterns[i] = {uint16_t(i)};
  std::vector<float> vectors(65536);
  half.load(patterns.data(), vectors.data(), 65536);
  for (int i = 0; i < 65536; ++i) {
    const float expected = float(Element<T>::decode(patterns[i])), one = half.widen(patterns[i]);
    if (is_nan(patterns[i])) {
      CHECK(one != one && vectors[i] != vectors[i], "%s %04x: a NaN became %g, %g", Element<T>::name, i, one,
            vectors[i]);
      continue;
    }
    CHECK(bits_of(one) == bits_of(expected), "%s %04x: got %.9g, expected %.9g", Element<T>::name, i, one, expected);
    CHECK(bits_of(vectors[i]) == bits_of(expected), "%s %04x: got %.9g from a vector, expected %.9g", Element<T>::name,
          i, vectors[i], expected);
  }
}

// All values, all points halfway between adjacent values, and the floats next to them; then random bits.
template <class T>
static std::vector<float> values_to_narrow() {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> values;
  for (int i = 0; !is_nan(T{uint16_t(i)}); ++i) {
    const double here = Element<T>::decode({uint16_t(i)}), below = i ? Element<T>::decode({uint16_t(i - 1)}) : here;
    // In place of infinity: the next value if the exponent range were larger.
    const double next = std::isinf(here) ? 2 * below - Element<T>::decode({uint16_t(i - 2)}) : here;
    const float middle = float((below + next) / 2), exact = float(here);
    for (const float v : {exact, middle})
      for (const float x : {v, std::nextafter(v, infinity), std::nextafter(v, -infinity)}) values.insert(values.end(), {x, -x});
  }
  Random random{3};
  for (int i = 0; i < (1 << 20) + 5; ++i) {  // + 5: a partial last vector
    const uint32_t bits = uint32_t(random.bits());
    float x;
    std::memcpy(&x, &bits, 4);
    values.push_back(x);
  }
  return values;
}

template <class T>
static void test_narrow(const HalfInternals<T>& half) {
  const std::vector<float> values = values_to_narrow<T>();
  std::vector<T> vectors(values.size());
  half.store(values.data(), vectors.data(), int64_t(values.size()));
  for (size_t i = 0; i < values.size(); ++i) {
    const T expected = Element<T>::encode(values[i]), one = half.narrow(values[i]);
    if (values[i] != values[i]) {
      CHECK(is_nan(one) && is_nan(vectors[i]), "%s: NaN %08x became %04x, %04x", Element<T>::name, bits_of(values[i]),
            one.bits, vectors[i].bits);
      continue;
    }
    CHECK(one.bits == expected.bits, "%s of %.9g: got %04x, expected %04x", Element<T>::name, values[i], one.bits,
          expected.bits);
    CHECK(vectors[i].bits == expected.bits, "%s of %.9g: got %04x from a vector, expected %04x", Element<T>::name,
          values[i], vectors[i].bits, expected.bits);
  }
}

// A NaN whose payload is truncated must not become infinity.
template <class T>
static void test_nan(const HalfInternals<T>& half) {
  for (int shift = 0; shift < 23; ++shift)
    for (const uint32_t sign : {0u, 0x80000000u})
      for (const uint32_t payload : {1u << shift, 0x7fffffu >> shift}) {
        const uint32_t bits = sign | 0x7f800000 | payload;
        std::vector<float> x(16);
        for (float& e : x) std::memcpy(&e, &bits, 4);
        std::vector<T> y(16);
        half.store(x.data(), y.data(), 16);
        CHECK(is_nan(half.narrow(x[0])) && is_nan(y[0]) && is_nan(y[15]), "%s: NaN %08x became %04x, %04x",
              Element<T>::name, bits, half.narrow(x[0]).bits, y[0].bits);
      }
}

static void test(const InstructionSet& set) {
  // Known values of the reference itself.
  CHECK(Element<float16>::encode(1).bits == 0x3c00 && Element<float16>::encode(-2).bits == 0xc000, "float16");
  CHECK(Element<float16>::encode(65504).bits == 0x7bff && Element<float16>::encode(65520).bits == 0x7c00, "float16");
  CHECK(Element<float16>::encode(0x1p-24).bits == 1 && Element<float16>::encode(0x1p-25).bits == 0, "float16");
  CHECK(Element<bfloat16>::encode(1).bits == 0x3f80 && Element<bfloat16>::encode(3.140625).bits == 0x4049, "bfloat16");
  test_widen(set.internals.float16_conversions);
  test_widen(set.internals.bfloat16_conversions);
  test_narrow(set.internals.float16_conversions);
  test_narrow(set.internals.bfloat16_conversions);
  test_nan(set.internals.float16_conversions);
  test_nan(set.internals.bfloat16_conversions);
}

int main() { return run(test); }
