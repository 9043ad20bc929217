// Returns and advantages over time-major [T, B] arrays: what the kernels offer.
#pragma once
#include <cstdint>

#include "../common/dtype.h"

namespace automl_ext {

// One call's arrays, all contiguous [T, B]; what an op does not have is null. Flags are bytes: no terminated or
// truncated means that no step is, no valid that every step is.
struct Trajectory {
  int64_t steps, columns;  // T, B
  const uint8_t *terminated, *truncated, *valid;
  const void *log_rhos, *rewards, *values, *next_values, *discounts, *returns;
  const void *grad, *grad_returns;
  void* out[3];
  int64_t* last;
  double gamma, lam, rho_clip, c_clip;
  int64_t n;
};

struct ReturnsKernels {
  // Columns [begin, end). The trajectory comes by value: nothing that a kernel writes can then be a part of it, or it would
  // be read again for every vector.
  using Columns = void (*)(Trajectory, int64_t begin, int64_t end);
  // out: advantages, returns; backward: gradients of rewards, values, next_values.
  Columns gae[kDTypes], gae_backward[kDTypes];
  // out: returns; backward: gradients of rewards, next_values, and with `returns` of discounts.
  Columns lambda_returns[kDTypes], lambda_returns_backward[kDTypes];
  // out: returns, discounts; last. backward: gradients of rewards, and where not null of next_values.
  Columns n_step[kDTypes], n_step_backward[kDTypes];
  // out: vs, advantages
  Columns vtrace[kDTypes];
  // out: targets; values holds Q
  Columns retrace[kDTypes];
};

// The kernels of the chosen instruction set. Defined in instruction_sets/kernels.cpp.
const ReturnsKernels& returns_kernels();

}  // namespace automl_ext
