// CUDA launches of the returns family. The arrays are those of the CPU kernels (returns.h), on the device; none is
// empty.
#pragma once
#include "returns.h"

namespace automl_ext {

// One launch per kernel, with the same member names as ReturnsKernels.
struct ReturnsLaunches {
  using Launch = void (*)(DType dtype, const Trajectory& x, void* stream);
  Launch gae, gae_backward;
  Launch lambda_returns, lambda_returns_backward;
  Launch n_step, n_step_backward;
  Launch vtrace;
  Launch retrace;
};

const ReturnsLaunches& returns_launches();

}  // namespace automl_ext
