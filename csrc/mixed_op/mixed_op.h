// Weighted sums of K arrays of one length: what the kernels offer.
#pragma once
#include <cstdint>

#include "../common/dtype.h"

namespace automl_ext {

struct MixedOpKernels {
  // y[i] = Σₖ weights[k]·inputs[k][i] for i in [begin, end); weights in double, used as float except for float64.
  using Forward = void (*)(const void* const* inputs, const double* weights, int64_t count, void* y, int64_t begin,
                           int64_t end);
  // For one tile [begin, end) of grad: grad_inputs[k][i] = weights[k]·grad[i] and dots[k] = ⟨grad, inputs[k]⟩.
  // A null grad_inputs[k] is not wanted; null dots: no weight's gradient is. past_caches: all tiles' grad_inputs are more
  // than the caches hold.
  using Backward = void (*)(const void* grad, const void* const* inputs, const double* weights, int64_t count,
                            void* const* grad_inputs, double* dots, int64_t begin, int64_t end, bool past_caches);
  Forward forward[kDTypes];
  Backward backward[kDTypes];
};

// The kernels of the chosen instruction set. Defined in instruction_sets/kernels.cpp.
const MixedOpKernels& mixed_op_kernels();

}  // namespace automl_ext
