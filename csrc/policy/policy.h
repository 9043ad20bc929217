// CPU kernels of policy-gradient losses: log-probabilities of categorical actions, and PPO's clipped surrogate.
#pragma once
#include <cstdint>

#include "../common/dtype.h"

namespace automl_ext {

// log π(a) and the entropy of each row of contiguous logits [rows, n]. The actions must be in [0, n).
struct CategoricalCall {
  int64_t rows, n;
  const void* logits;
  const int64_t* actions;
  void *log_probs, *entropy;  // [rows]
};

// The gradient of the logits from those of log_probs and entropy; either may be null.
struct CategoricalBackward {
  int64_t rows, n;
  const void* logits;
  const int64_t* actions;
  const void *grad_log_probs, *grad_entropy;
  void* grad_logits;
};

// y = min(r·A, clip(r, 1 − ε, 1 + ε)·A) with r = exp(log_probs − old). If grad is not null, y is the gradient of log_probs.
struct SurrogateCall {
  const void *log_probs, *old, *advantages, *grad;
  void* y;
  double clip;
};

struct PolicyKernels {
  void (*categorical[kDTypes])(const CategoricalCall&, int64_t begin, int64_t end);
  void (*categorical_backward[kDTypes])(const CategoricalBackward&, int64_t begin, int64_t end);
  void (*surrogate[kDTypes])(const SurrogateCall&, int64_t begin, int64_t end);
};

// The kernels of the chosen instruction set. Defined in instruction_sets/kernels.cpp.
const PolicyKernels& policy_kernels();

}  // namespace automl_ext
