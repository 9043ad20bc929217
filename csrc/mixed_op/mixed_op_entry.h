// Device-independent parts of the entry functions of mixed-op aggregation: checks, memory layouts, results.
#pragma once
#include <ATen/ops/empty_like.h>

#include <tuple>
#include <vector>

#include "../common/tensors.h"

namespace automl_ext {

// x in the layout of at::empty_like(x), which is also the layout that the fake (meta) kernel returns.
inline at::Tensor dense(const at::Tensor& x) {
  return x.is_non_overlapping_and_dense() ? x : at::empty_like(x).copy_(x);
}

// x as dense memory with the strides of `like`, so that the kernels run one flat loop over all arrays.
inline at::Tensor dense_like(const at::Tensor& x, const at::Tensor& like) {
  if (x.strides() == like.strides()) return x;
  at::Tensor copy = at::empty_like(like);
  copy.copy_(x);
  return copy;
}

inline void check_weights(const at::Tensor& weights, at::IntArrayRef positions, const at::Tensor& like) {
  check_device("mixed_op", "weights", weights, like);
  for (const int64_t k : positions)
    TORCH_CHECK_INDEX(0 <= k && k < weights.numel(), "mixed_op: positions: expected values in [0, ",
                      weights.numel() - 1, "], got ", k);
}

// reads(i): whether inputs[i] is read. Calls run(dtype, pointers, y); pointers[i] is null where inputs[i] is not read.
template <class Reads, class Run>
at::Tensor mixed_op_forward(at::TensorList inputs, const at::Tensor& weights, at::IntArrayRef positions,
                            const Reads& reads, const Run& run) {
  TORCH_CHECK_VALUE(!inputs.empty() && inputs.size() == positions.size(),
                    "mixed_op: inputs: expected at least 1, and the same number as positions, got ", inputs.size());
  const DType dtype = dtype_of(inputs[0], "mixed_op", "inputs");
  for (const auto& x : inputs) check_like("mixed_op", "inputs", x, inputs[0]);
  check_weights(weights, positions, inputs[0]);
  const at::Tensor first = dense(inputs[0]);
  std::vector<at::Tensor> kept;  // keeps the memory alive while the kernel uses it
  std::vector<const void*> pointers(inputs.size(), nullptr);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!reads(i)) continue;
    kept.push_back(i == 0 ? first : dense_like(inputs[i], first));
    pointers[i] = kept.back().const_data_ptr();
  }
  const at::Tensor y = at::empty_like(first);
  if (y.numel()) run(dtype, pointers, y);
  return y;
}

// Arrays of a backward pass. inputs[i] is null where it is not read, grad_inputs[i] where no gradient is needed.
struct MixedOpBackward {
  DType dtype;
  at::Tensor grad;
  std::vector<const void*> inputs;
  std::vector<void*> grad_inputs;
  bool weights_need;
};

// run(MixedOpBackward) returns the gradient of the weights, undefined if they need none.
template <class Run>
std::tuple<std::vector<at::Tensor>, at::Tensor> mixed_op_backward(const at::Tensor& grad, at::TensorList inputs,
                                                                  const at::Tensor& weights, at::IntArrayRef positions,
                                                                  const c10::List<bool>& input_needs, const Run& run) {
  const bool weights_need = !inputs.empty();
  TORCH_CHECK_VALUE(input_needs.size() == positions.size() && (!weights_need || inputs.size() == positions.size()),
                    "mixed_op: backward: expected ", positions.size(), " inputs (or none) and input_needs, got ",
                    inputs.size(), " and ", input_needs.size());
  for (const auto& x : inputs) check_like("mixed_op", "grad", grad, x);
  check_weights(weights, positions, grad);
  const at::Tensor like = dense(weights_need ? inputs[0] : grad);
  const size_t count = positions.size();
  MixedOpBackward pass = {dtype_of(grad, "mixed_op", "grad"), dense_like(grad, like),
                          std::vector<const void*>(count, nullptr), std::vector<void*>(count, nullptr), weights_need};
  std::vector<at::Tensor> kept, grad_inputs;
  for (size_t i = 0; i < count; ++i) {
    if (weights_need) {
      kept.push_back(dense_like(inputs[i], like));
      pass.inputs[i] = kept.back().const_data_ptr();
    }
    if (input_needs.get(i)) {
      grad_inputs.push_back(at::empty_like(like));
      pass.grad_inputs[i] = grad_inputs.back().mutable_data_ptr();
    }
  }
  const at::Tensor grad_weights = run(pass);
  return {grad_inputs, weights_need ? grad_weights : at::empty({0}, weights.options())};
}

}  // namespace automl_ext
