// Test cases of the CUDA kernels of Gumbel sampling: sizes, seeds and temperatures of groups of rows.
#pragma once
#include "../cuda_on_cpu/cuda_on_cpu.h"

#include "../../csrc/gumbel/gumbel_cuda.cu"
#include "../references/check.h"
#include "../references/entmax_reference.h"
#include "../references/numbers.h"
#include "../references/philox_reference.h"
#include "cuda_types.h"

namespace automl_ext {

// Maximum error in ulp of the row's largest value. The half types only round the result.
template <class T>
static constexpr double max_ulps = sizeof(T) == 2 ? 0.51 : 4;

struct Case {
  int64_t n, rows_per_group, groups;
  std::vector<int64_t> seeds;  // one for all groups, or one per group
  std::vector<double> taus;    // likewise; if tau_dtype is kDTypes, a single value passed by value
  DType tau_dtype;
  int64_t inner = 1;  // columns: the rows of [count / inner, n, inner]

  int64_t count() const { return rows_per_group * groups; }
  uint64_t seed(int64_t row) const { return uint64_t(seeds[seeds.size() > 1 ? row / rows_per_group : 0]); }
  // The temperature of a row, rounded to tau_dtype.
  double tau(int64_t row) const {
    const double tau = taus[taus.size() > 1 ? row / rows_per_group : 0];
    switch (tau_dtype) {
      case kFloat32: return float(tau);
      case kBFloat16: return HalfFormat<7>::decode(HalfFormat<7>::encode(tau));
      case kFloat16: return HalfFormat<10>::decode(HalfFormat<10>::encode(tau));
      default: return tau;
    }
  }
};

// A case in the form that the launches take.
struct OnDevice {
  std::vector<double> doubles;
  std::vector<float> floats;
  std::vector<bfloat16> bfloats;
  std::vector<float16> halves;
  GumbelCudaRows rows{};

  explicit OnDevice(const Case& c)
      : doubles(c.taus),
        floats(encoded<float>(c.taus)),
        bfloats(encoded<bfloat16>(c.taus)),
        halves(encoded<float16>(c.taus)) {
    const void* taus[] = {doubles.data(), floats.data(), bfloats.data(), halves.data(), nullptr};
    rows = {c.count(),         c.n,         c.rows_per_group,  c.seeds.data(), c.seeds.size() > 1,
            taus[c.tau_dtype], c.tau_dtype, c.taus.size() > 1, c.taus[0],      c.inner};
  }
};

inline std::vector<Case> cases() {
  const std::vector<int64_t> one = {42}, five = {1, -7, int64_t(1) << 40, 0, 42};
  const std::vector<double> taus = {1.0, 0.1, 3.0, 0.7, 10.0};
  return {
      {1, 5, 1, one, {1.0}, kDTypes},      {2, 140, 1, one, {0.5}, kDTypes},
      {7, 30, 5, five, {1.0}, kFloat32},   {8, 4, 5, five, {0.9}, kFloat16},  // groups of 32 elements: half a window
      {8, 150, 1, one, {1.0}, kDTypes},    {13, 11, 5, five, taus, kFloat64},
      {31, 40, 1, {-1}, {2.0}, kBFloat16}, {32, 20, 1, one, {1.0}, kDTypes},
      {33, 5, 5, one, taus, kFloat32},     {100, 9, 1, one, {0.66}, kFloat64},
      {128, 6, 1, one, {1.0}, kDTypes},    {129, 3, 2, {3, 4}, {1.0}, kDTypes},
      {1000, 5, 1, one, {0.1}, kDTypes},   {1024, 4, 1, one, {1.0}, kDTypes},
      {5000, 2, 1, one, {1.0}, kDTypes},   {1040, 1, 3, {3, 4, 5}, {1.0, 0.5, 2.0}, kBFloat16},
  };
}

// Columns, with blocks and groups that are not full.
inline std::vector<Case> column_cases() {
  return {
      {5, 160, 2, {3, 4}, {1.0, 0.5}, kFloat32, 32},  {8, 90, 1, {42}, {1.0}, kDTypes, 45},
      {20, 40, 3, {3, 4, 5}, {0.7}, kFloat64, 40},    {64, 33, 1, {-1}, {2.0}, kBFloat16, 33},
      {100, 48, 2, {1, 2}, {1.0, 3.0}, kFloat16, 16}, {128, 33, 1, {42}, {1.0}, kFloat32, 33},
  };
}

}  // namespace automl_ext
