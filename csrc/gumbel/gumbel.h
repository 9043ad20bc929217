// Gumbel sampling over the rows of a contiguous [rows, n] array: the interface of the CPU kernels.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../common/dtype.h"
#include "../instruction_sets/choice.h"

namespace automl_ext {

// Rows are in groups of rows_per_group; there is one group except under vmap. Group i has the seed seeds[i * seed_step]
// and the temperature taus[i * tau_step]; a step of 0 means that all groups share one value. Each group numbers its elements
// from 0.
struct GumbelRows {
  int64_t n;  // categories
  int64_t rows_per_group;
  const int64_t* seeds;
  int64_t seed_step;
  const double* taus;
  int64_t tau_step;
};

struct GumbelKernels {
  // For rows [begin, end): soft = f((x + noise)/τ), one_hot of argmax(x + noise), and the argmax. Outputs may be null, but
  // one_hot requires soft, from which the kernel detects NaN rows.
  using Sample = void (*)(const GumbelRows& rows, const void* x, void* soft, void* one_hot, int64_t* index,
                          int64_t begin, int64_t end, void* scratch);
  // For rows [begin, end): dx and, unless null, the contribution of each row to dτ.
  using Backward = void (*)(const GumbelRows& rows, const void* grad, const void* y, void* dx, double* dtau,
                            int64_t begin, int64_t end);
  Sample softmax[kDTypes], entmax15[kDTypes];
  Backward softmax_backward[kDTypes], entmax15_backward[kDTypes];
};

static constexpr int64_t kGumbelTile = 4096;  // elements sampled at a time; they stay in the L1 cache

// A tile or a row of perturbed logits, followed by as many exponentials or the scratch of entmax, all in double.
inline size_t gumbel_scratch_bytes(int64_t n) {
  return size_t(2 * ((n > kGumbelTile ? n : kGumbelTile) + 64) + n / 4) * sizeof(double);
}

DECLARE_KERNELS(GumbelKernels, gumbel)

}  // namespace automl_ext
