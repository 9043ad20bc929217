// Mixed-op aggregation on CUDA, over arrays of one length n and any number of them. weights_dtype: the inputs', or
// float32 beside half inputs. positions[i] is the place of inputs[i] among the weights.
#pragma once
#include <cstdint>

#include "../common/dtype.h"

namespace automl_ext {

// Bytes of scratch memory that the launches want, 16-byte aligned.
int64_t mixed_op_scratch(DType dtype, int64_t inputs, int64_t n);
int64_t mixed_op_backward_scratch(int64_t inputs, int64_t weights, int64_t n);

// y = Σ weights[positions[i]]·inputs[i].
void launch_mixed_op(DType dtype, DType weights_dtype, const void* const* inputs, const int64_t* positions,
                     int64_t inputs_count, const void* weights, void* y, int64_t n, void* scratch, void* stream);

struct MixedOpGradients {
  void* const* inputs;  // null where not wanted
  void* weights;        // null: not wanted, and the inputs are not read
};
void launch_mixed_op_backward(DType dtype, DType weights_dtype, const void* grad, const void* const* inputs,
                              const int64_t* positions, int64_t inputs_count, const void* weights,
                              int64_t weights_count, MixedOpGradients gradients, int64_t n, void* scratch,
                              void* stream);

}  // namespace automl_ext
