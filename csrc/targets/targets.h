// CPU kernels of Q-learning targets, one target per row: td_targets and the categorical projection.
#pragma once
#include <cstdint>

#include "../common/dtype.h"
#include "../instruction_sets/choice.h"

namespace automl_ext {

// One call of the categorical projection over contiguous [rows, atoms].
struct Projection {
  int64_t rows, atoms;
  const void *probs, *rewards, *discounts;  // null discounts: gamma
  const uint8_t* terminated;
  void* out;
  double gamma, v_min, v_max;
};

// One call of td_targets over contiguous [rows, actions].
struct TdTargets {
  int64_t rows, actions;
  // selector: the Q values whose argmax selects the action; q in Q-learning, the online network's in double Q-learning.
  const void *q, *selector, *rewards, *discounts;  // null discounts: gamma
  const uint8_t* terminated;
  void* out;
  double gamma;
};

struct TargetsKernels {
  // Both process rows [begin, end). scratch holds one double per atom.
  using Projections = void (*)(const Projection&, int64_t begin, int64_t end, double* scratch);
  Projections projection[kDTypes];
  using Targets = void (*)(const TdTargets&, int64_t begin, int64_t end);
  Targets td_targets[kDTypes];
};

DECLARE_KERNELS(TargetsKernels, targets)

}  // namespace automl_ext
