// CUDA launches of mixed-op aggregation over any number of arrays of equal length n. weights_dtype is the inputs'
// dtype, or float32 for inputs of a half type. positions[i] is the index of the weight of inputs[i].
#pragma once
#include <cstdint>

#include "../common/dtype.h"

namespace automl_ext {

// Bytes of scratch memory that a launch needs, 16-byte aligned.
int64_t mixed_op_scratch(DType dtype, int64_t inputs, int64_t n);
int64_t mixed_op_backward_scratch(int64_t inputs, int64_t weights, int64_t n);

// y = Σ weights[positions[i]]·inputs[i].
void launch_mixed_op(DType dtype, DType weights_dtype, const void* const* inputs, const int64_t* positions,
                     int64_t inputs_count, const void* weights, void* y, int64_t n, void* scratch, void* stream);

struct MixedOpGradients {
  void* const* inputs;  // null for each input that needs no gradient
  void* weights;        // null if the weights need no gradient; the inputs are then not read
};
void launch_mixed_op_backward(DType dtype, DType weights_dtype, const void* grad, const void* const* inputs,
                              const int64_t* positions, int64_t inputs_count, const void* weights,
                              int64_t weights_count, MixedOpGradients gradients, int64_t n, void* scratch,
                              void* stream);

}  // namespace automl_ext
