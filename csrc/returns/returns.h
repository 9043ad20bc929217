// CPU kernels of returns and advantages over time-major [T, B] arrays.
#pragma once
#include <cstdint>

#include "../common/dtype.h"
#include "../instruction_sets/choice.h"

namespace automl_ext {

// The arrays of one call, all contiguous [T, B]; arrays that an op does not use are null. Flags are bytes, 0 or 1. If
// `terminated` or `truncated` is null, no step is terminated or truncated. If `valid` is null, every step is valid.
struct Trajectory {
  int64_t steps, columns;  // T, B
  bool carries;            // with `valid`: invalid steps pass on what follows them, instead of a cut
  const uint8_t *terminated, *truncated, *valid;
  const void *log_rhos, *rewards, *values, *next_values, *discounts, *returns;
  const void *grad, *grad_returns;
  void* out[3];
  int64_t* last;
  double gamma, lam, rho_clip, c_clip;
  int64_t n;
};

struct ReturnsKernels {
  // Processes columns [begin, end). The trajectory is passed by value: the compiler then knows that no store changes
  // it, and keeps its fields in registers.
  using Columns = void (*)(Trajectory, int64_t begin, int64_t end);
  // out: advantages, returns. Backward: the gradients of rewards, values and next_values.
  Columns gae[kDTypes], gae_backward[kDTypes];
  // out: returns. Backward: the gradients of rewards and next_values, and, if `returns` is given, of discounts.
  Columns lambda_returns[kDTypes], lambda_returns_backward[kDTypes];
  // out: returns, discounts; also `last`. Backward: the gradients of rewards and, if out[1] is not null, of
  // next_values.
  Columns n_step[kDTypes], n_step_backward[kDTypes];
  // out: vs, advantages
  Columns vtrace[kDTypes];
  // out: targets; `values` holds Q
  Columns retrace[kDTypes];
};

DECLARE_KERNELS(ReturnsKernels, returns)

}  // namespace automl_ext
