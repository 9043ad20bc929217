// CUDA launches of the targets family. The arrays are those of the CPU kernels (targets.h), on the device; none is
// empty.
#pragma once
#include "targets.h"

namespace automl_ext {

// One launch per kernel, with the same member names as TargetsKernels.
struct TargetsLaunches {
  using LaunchProjection = void (*)(DType dtype, const Projection& x, void* stream);
  LaunchProjection projection;
  using LaunchTargets = void (*)(DType dtype, const TdTargets& x, void* stream);
  LaunchTargets td_targets;
};

const TargetsLaunches& targets_launches();

}  // namespace automl_ext
