// Test cases of Gumbel sampling: sizes, seeds and temperatures of groups of rows, and the noise by its definition.
#pragma once
#include "../instruction_sets/run.h"
#include "../references/numbers.h"
#include "../references/philox_reference.h"

namespace automl_ext {

struct GumbelCase {
  int64_t n, rows_per_group, groups;
  std::vector<int64_t> seeds;  // one for all groups, or one per group
  std::vector<double> taus;

  int64_t count() const { return rows_per_group * groups; }
  GumbelRows rows() const {
    return {n, rows_per_group, seeds.data(), seeds.size() > 1, taus.data(), taus.size() > 1};
  }
  double tau(int64_t row) const { return taus[taus.size() > 1 ? row / rows_per_group : 0]; }

  // The noise of each element. Words are converted to noise by the kernel's own function, which test_gumbel_noise.cpp
  // tests.
  template <class C>
  std::vector<C> noise(const MathInternals<C>& math) const {
    std::vector<uint32_t> words;
    for (int64_t row = 0; row < count(); ++row)
      for (int64_t i = 0; i < n; ++i) {
        const int64_t seed = seeds[seeds.size() > 1 ? row / rows_per_group : 0];
        words.push_back(word_of_element(uint64_t(seed), uint64_t(row % rows_per_group * n + i)));
      }
    words.resize((words.size() + 15) / 16 * 16);
    std::vector<C> noise(words.size());
    math.gumbel(words.data(), noise.data(), int64_t(words.size()));
    noise.resize(size_t(count() * n));
    return noise;
  }
};

inline const MathInternals<float>& math_of(const Internals& internals, float) { return internals.float_math; }
inline const MathInternals<double>& math_of(const Internals& internals, double) { return internals.double_math; }

inline std::vector<GumbelCase> gumbel_cases() {
  const std::vector<int64_t> one = {42}, five = {1, -7, int64_t(1) << 40, 0, 42};
  return {
      {1, 5, 1, one, {1.0}},        {2, 40, 1, one, {0.5}},
      {7, 30, 1, one, {1.0}},       {8, 4, 5, five, {1.0}},  // half of the groups start inside a block
      {13, 11, 5, five, {1.0, 0.1, 3.0, 0.7, 10.0}},
      {13, 11, 5, one, {1.0, 0.1, 3.0, 0.7, 10.0}},
      {16, 9, 1, {-1}, {2.0}},      {33, 5, 5, five, {0.3}},
      {64, 3, 1, one, {1.0}},       {100, 90, 1, one, {0.66}},  // more than one tile of rows
      {1000, 9, 1, one, {0.1}},     {5000, 3, 1, one, {1.0}},  // rows longer than a tile
  };
}

}  // namespace automl_ext
