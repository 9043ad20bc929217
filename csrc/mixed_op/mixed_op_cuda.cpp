// CUDA entry functions of mixed-op aggregation.
#include <torch/library.h>

#include "../common/cuda/device.h"
#include "mixed_op_cuda.h"
#include "mixed_op_entry.h"

namespace automl_ext {
namespace {

// The weights in a dtype that the kernels accept for inputs like `like`. They stay on the device.
at::Tensor weights_like(const at::Tensor& weights, const at::Tensor& like) {
  const auto dtype = like.scalar_type(), computed = dtype == at::kDouble ? at::kDouble : at::kFloat;
  return weights.scalar_type() == dtype ? weights.contiguous() : weights.to(computed).contiguous();
}

// Scratch memory from torch's allocator, so that CUDA graphs can capture the call.
at::Tensor empty_scratch(int64_t bytes, const at::Tensor& like) {
  return at::empty({bytes}, like.options().dtype(at::kByte));
}

at::Tensor forward(at::TensorList inputs, const at::Tensor& weights, at::IntArrayRef positions) {
  // The host does not know the weights; the kernel skips inputs of weight 0.
  const auto reads = [](size_t) { return true; };
  return mixed_op_forward(inputs, weights, positions, reads, [&](DType dtype, const auto& all, const at::Tensor& y) {
    const CudaCall call("mixed_op", y);
    const int64_t count = int64_t(all.size());
    const at::Tensor w = weights_like(weights, y);
    const at::Tensor scratch = empty_scratch(mixed_op_scratch(dtype, count, y.numel()), y);
    launch_mixed_op(dtype, dtype_of(w, "mixed_op", "weights"), all.data(), positions.data(), count, w.const_data_ptr(),
                    y.mutable_data_ptr(), y.numel(), scratch.mutable_data_ptr(), call.stream());
    call.check();
  });
}

at::Tensor run_backward(const MixedOpBackward& pass, const at::Tensor& weights, at::IntArrayRef positions) {
  const CudaCall call("mixed_op", pass.grad);
  const int64_t count = int64_t(positions.size()), n = pass.grad.numel();
  const at::Tensor w = weights_like(weights, pass.grad);
  at::Tensor grad_weights, scratch;
  if (pass.weights_need) {
    grad_weights = at::empty_like(w);
    scratch = empty_scratch(mixed_op_backward_scratch(count, w.numel(), n), w);
  }
  launch_mixed_op_backward(pass.dtype, dtype_of(w, "mixed_op", "weights"), pass.grad.const_data_ptr(),
                           pass.inputs.data(), positions.data(), count, w.const_data_ptr(), w.numel(),
                           {pass.grad_inputs.data(), pass.weights_need ? grad_weights.mutable_data_ptr() : nullptr}, n,
                           pass.weights_need ? scratch.mutable_data_ptr() : nullptr, call.stream());
  call.check();
  return pass.weights_need ? grad_weights.to(weights.scalar_type()) : at::Tensor();
}

std::tuple<std::vector<at::Tensor>, at::Tensor> backward(const at::Tensor& grad, at::TensorList inputs,
                                                         const at::Tensor& weights, at::IntArrayRef positions,
                                                         const c10::List<bool>& input_needs) {
  return mixed_op_backward(grad, inputs, weights, positions, input_needs,
                           [&](const MixedOpBackward& pass) { return run_backward(pass, weights, positions); });
}

}  // namespace
}  // namespace automl_ext

TORCH_LIBRARY_IMPL(automl_ext, CUDA, m) {
  m.impl("mixed_op", TORCH_FN(automl_ext::forward));
  m.impl("_mixed_op_backward", TORCH_FN(automl_ext::backward));
}
