// CPU kernels of policy-gradient methods: log-probabilities of categorical actions, and the loss.
#pragma once
#include <cstdint>

#include "../common/dtype.h"
#include "../instruction_sets/choice.h"

namespace automl_ext {

// log π(a) and the entropy of each row of contiguous logits [rows, n]. The actions must be in [0, n).
struct CategoricalCall {
  int64_t rows, n;
  const void* logits;
  const int64_t* actions;
  void *log_probs, *entropy;  // [rows]
  void* statistics;           // null, or [3, rows] in the type of the computation, for the backward pass
};

// The gradient of the logits from those of log_probs and entropy; either may be null. So may the statistics, which are
// then computed again.
struct CategoricalBackward {
  int64_t rows, n;
  const void* logits;
  const int64_t* actions;
  const void *grad_log_probs, *grad_entropy, *statistics;
  void* grad_logits;
};

// Σ w·(objective, squared error of the value, entropy) over contiguous elements. The objective of an element is A·log_prob, or
// min(r·A, clip(r, 1 − ε, 1 + ε)·A) with r = exp(log_prob − old_log_prob). With old_values, the error is the larger one of
// those of the value and of old_value + clip(value − old_value, ±value_clip).
struct PolicyLoss {
  const void *log_probs, *entropy, *values, *advantages, *returns;
  const void *old_log_probs, *old_values, *weights;  // may be null
  void *of_log_probs, *of_values;                    // gradients of −objective + vf_coef·error; null if none is needed
  double weight;                                     // of each element without weights
  double clip, value_clip, vf_coef;
};

struct PolicyKernels {
  void (*categorical[kDTypes])(const CategoricalCall&, int64_t begin, int64_t end);
  void (*categorical_backward[kDTypes])(const CategoricalBackward&, int64_t begin, int64_t end);
  void (*loss[kDTypes])(const PolicyLoss&, double sums[3], int64_t begin, int64_t end);  // sets the sums
};

DECLARE_KERNELS(PolicyKernels, policy)

}  // namespace automl_ext
