// Flags of steps, shared by the CUDA kernels over time, as in steps.inc. Ignored values are masked by selection, never
// by multiplication, because they may be NaN.
#pragma once
#include "../common/cuda/types.cuh"
#include "returns.h"

namespace automl_ext {

// Each flag is 0 or 1.
struct Flags {
  uint32_t cut;   // the step uses no later step: its episode ends here, or it or the next step is invalid
  uint32_t live;  // valid and not terminated: V' is used
  uint32_t valid;
};

__device__ __forceinline__ uint32_t valid_at(const Trajectory& x, int64_t at) { return x.valid ? x.valid[at] : 1u; }
// Computed without branches, so that no branch waits for a load.
__device__ __forceinline__ Flags flags_at(const Trajectory& x, int64_t at, uint32_t valid, uint32_t next_valid) {
  const uint32_t terminated = x.terminated ? x.terminated[at] : 0u, truncated = x.truncated ? x.truncated[at] : 0u;
  return {terminated | truncated | (next_valid ^ 1u) | (valid ^ 1u), valid & (terminated ^ 1u), valid};
}
// The flags of step t; `at` is the index of its element in the arrays.
__device__ __forceinline__ Flags flags_at(const Trajectory& x, int64_t t, int64_t at) {
  const bool last = t + 1 >= x.steps;
  const uint32_t next_valid = last ? 0u : valid_at(x, at + x.columns);
  return flags_at(x, at, valid_at(x, at), next_valid);
}

}  // namespace automl_ext
