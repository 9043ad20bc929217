// CPU kernels of mixed-op aggregation: weighted sums of K arrays of equal length.
#pragma once
#include <cstdint>

#include "../common/dtype.h"
#include "../instruction_sets/choice.h"

namespace automl_ext {

struct MixedOpKernels {
  // y[i] = Σₖ weights[k]·inputs[k][i] for i in [begin, end). The weights are double; they are converted to float unless
  // the dtype is float64.
  using Forward = void (*)(const void* const* inputs, const double* weights, int64_t count, void* y, int64_t begin,
                           int64_t end);
  // For one tile [begin, end) of grad: grad_inputs[k][i] = weights[k]·grad[i] and dots[k] = ⟨grad, inputs[k]⟩.
  // grad_inputs[k] is null where input k needs no gradient; dots is null where the weights need none. bypass_cache:
  // write grad_inputs with streaming stores, because together they exceed the cache.
  using Backward = void (*)(const void* grad, const void* const* inputs, const double* weights, int64_t count,
                            void* const* grad_inputs, double* dots, int64_t begin, int64_t end, bool bypass_cache);
  Forward forward[kDTypes];
  Backward backward[kDTypes];
};

DECLARE_KERNELS(MixedOpKernels, mixed_op)

}  // namespace automl_ext
