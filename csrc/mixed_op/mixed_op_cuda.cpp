// CUDA entry functions of mixed-op aggregation.

#include "mixed_op_cuda.h"
#include "../common/cuda/device.h"
#include "../common/kernel_library.h"
#include "mixed_op_entry.h"

namespace automl_ext {
namespace {

// The weights in a dtype that the kernels accept for inputs like `like`. They stay on the device.
Tensor weights_like(const Tensor& weights, const Tensor& like) {
  const auto dtype = like.scalar_type(),
             computed = dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  return weights.scalar_type() == dtype ? contiguous(weights) : contiguous(to_dtype(weights, computed));
}

// Scratch memory from torch's allocator, so that CUDA graphs can capture the call.
Tensor empty_scratch(int64_t bytes, const Tensor& like) { return empty({bytes}, ScalarType::Byte, like); }

Tensor forward(TensorList inputs, const Tensor& weights, IntList positions) {
  // The host does not know the weights; the kernel skips inputs of weight 0.
  const auto reads = [](size_t) { return true; };
  return mixed_op_forward(inputs, weights, positions, reads, [&](DType dtype, const auto& all, const Tensor& y) {
    const CudaCall call("mixed_op", y);
    const int64_t count = int64_t(all.size());
    const Tensor w = weights_like(weights, y);
    const Tensor scratch = empty_scratch(mixed_op_scratch(dtype, count, y.numel()), y);
    launch_mixed_op(dtype, dtype_of(w, "mixed_op", "weights"), all.data(), positions.data(), count, w.const_data_ptr(),
                    y.mutable_data_ptr(), y.numel(), scratch.mutable_data_ptr(), call.stream());
    call.check();
  });
}

Tensor run_backward(const MixedOpBackward& pass, const Tensor& weights, IntList positions) {
  const CudaCall call("mixed_op", pass.grad);
  const int64_t count = int64_t(positions.size()), n = pass.grad.numel();
  const Tensor w = weights_like(weights, pass.grad);
  Tensor grad_weights, scratch;
  if (pass.weights_need) {
    grad_weights = empty_like(w);
    scratch = empty_scratch(mixed_op_backward_scratch(count, w.numel(), n), w);
  }
  launch_mixed_op_backward(pass.dtype, dtype_of(w, "mixed_op", "weights"), pass.grad.const_data_ptr(),
                           pass.inputs.data(), positions.data(), count, w.const_data_ptr(), w.numel(),
                           {pass.grad_inputs.data(), pass.weights_need ? grad_weights.mutable_data_ptr() : nullptr}, n,
                           pass.weights_need ? scratch.mutable_data_ptr() : nullptr, call.stream());
  call.check();
  return pass.weights_need ? to_dtype(grad_weights, weights.scalar_type()) : Tensor();
}

std::tuple<std::vector<Tensor>, Tensor> backward(const Tensor& grad, TensorList inputs, const Tensor& weights,
                                                 IntList positions, const std::vector<bool>& input_needs) {
  return mixed_op_backward(grad, inputs, weights, positions, input_needs,
                           [&](const MixedOpBackward& pass) { return run_backward(pass, weights, positions); });
}

}  // namespace
}  // namespace automl_ext

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CUDA, m) {
  using namespace automl_ext;
  implement<forward>(m, "mixed_op");
  implement<backward>(m, "_mixed_op_backward");
}
