// Targets of Q-learning, one per row: td_targets and the categorical projection. What the CPU kernels offer.
#pragma once
#include <cstdint>

#include "../common/dtype.h"

namespace automl_ext {

// One call of the categorical projection over contiguous [rows, atoms].
struct Projection {
  int64_t rows, atoms;
  const void *probs, *rewards, *discounts;  // discounts null: gamma
  const uint8_t* terminated;
  void* out;
  double gamma, v_min, v_max;
};

// One call of td_targets over contiguous [rows, actions].
struct TdTargets {
  int64_t rows, actions;
  const void *q, *judge, *rewards, *discounts;  // judge: the Q that chooses the action; discounts null: gamma
  const uint8_t* terminated;
  void* out;
  double gamma;
};

struct TargetsKernels {
  // Rows [begin, end). scratch holds one double per atom.
  using Projections = void (*)(const Projection&, int64_t begin, int64_t end, double* scratch);
  Projections projection[kDTypes];
  using Targets = void (*)(const TdTargets&, int64_t begin, int64_t end);
  Targets td_targets[kDTypes];
};

// The kernels of the chosen instruction set. Defined in instruction_sets/kernels.cpp.
const TargetsKernels& targets_kernels();

}  // namespace automl_ext
