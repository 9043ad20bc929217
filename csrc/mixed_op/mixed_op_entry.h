// Device-independent parts of the entry functions of mixed-op aggregation: checks, memory layouts, results.
#pragma once

#include <tuple>
#include <vector>

#include "../common/tensors.h"

namespace automl_ext {

// x in the layout of torch.empty_like(x), which is also the layout that the fake (meta) kernel returns.
inline Tensor dense(const Tensor& x) {
  if (is_dense(x)) return x;
  const Tensor copy = empty_like(x);
  copy_to(copy, x);
  return copy;
}

// x as dense memory with the strides of `like`, so that the kernels run one flat loop over all arrays.
inline Tensor dense_like(const Tensor& x, const Tensor& like) {
  if (abi::equal(x.strides(), like.strides())) return x;
  const Tensor copy = empty_like(like);
  copy_to(copy, x);
  return copy;
}

inline void check_weights(const Tensor& weights, IntList positions, const Tensor& like) {
  check_device("mixed_op", "weights", weights, like);
  for (const int64_t k : positions)
    CHECK_INDEX(0 <= k && k < weights.numel(), "mixed_op: positions: expected values in [0, ", weights.numel() - 1,
                "], got ", k);
}

// reads(i): whether inputs[i] is read. Calls run(dtype, pointers, y); pointers[i] is null where inputs[i] is not read.
template <class Reads, class Run>
Tensor mixed_op_forward(TensorList inputs, const Tensor& weights, IntList positions, const Reads& reads,
                        const Run& run) {
  CHECK_VALUE(!inputs.empty() && inputs.size() == positions.size(),
              "mixed_op: inputs: expected at least 1, and the same number as positions, got ", inputs.size());
  const DType dtype = dtype_of(inputs[0], "mixed_op", "inputs");
  for (const auto& x : inputs) check_like("mixed_op", "inputs", x, inputs[0]);
  check_weights(weights, positions, inputs[0]);
  const Tensor first = dense(inputs[0]);
  std::vector<Tensor> kept;  // keeps the memory alive while the kernel uses it
  std::vector<const void*> pointers(inputs.size(), nullptr);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!reads(i)) continue;
    kept.push_back(i == 0 ? first : dense_like(inputs[i], first));
    pointers[i] = kept.back().const_data_ptr();
  }
  const Tensor y = empty_like(first);
  if (y.numel()) run(dtype, pointers, y);
  return y;
}

// Arrays of a backward pass. inputs[i] is null where it is not read, grad_inputs[i] where no gradient is needed.
struct MixedOpBackward {
  DType dtype;
  Tensor grad;
  std::vector<const void*> inputs;
  std::vector<void*> grad_inputs;
  bool weights_need;
};

// run(MixedOpBackward) returns the gradient of the weights, undefined if they need none.
template <class Run>
std::tuple<std::vector<Tensor>, Tensor> mixed_op_backward(const Tensor& grad, TensorList inputs, const Tensor& weights,
                                                          IntList positions, const std::vector<bool>& input_needs,
                                                          const Run& run) {
  const bool weights_need = !inputs.empty();
  CHECK_VALUE(input_needs.size() == positions.size() && (!weights_need || inputs.size() == positions.size()),
              "mixed_op: backward: expected ", positions.size(), " inputs (or none) and input_needs, got ",
              inputs.size(), " and ", input_needs.size());
  for (const auto& x : inputs) check_like("mixed_op", "grad", grad, x);
  check_weights(weights, positions, grad);
  const Tensor like = dense(weights_need ? inputs[0] : grad);
  const size_t count = positions.size();
  MixedOpBackward pass = {dtype_of(grad, "mixed_op", "grad"), dense_like(grad, like),
                          std::vector<const void*>(count, nullptr), std::vector<void*>(count, nullptr), weights_need};
  std::vector<Tensor> kept, grad_inputs;
  for (size_t i = 0; i < count; ++i) {
    if (weights_need) {
      kept.push_back(dense_like(inputs[i], like));
      pass.inputs[i] = kept.back().const_data_ptr();
    }
    if (input_needs[i]) {
      grad_inputs.push_back(empty_like(like));
      pass.grad_inputs[i] = grad_inputs.back().mutable_data_ptr();
    }
  }
  const Tensor grad_weights = run(pass);
  return {grad_inputs, weights_need ? grad_weights : empty({0}, weights)};
}

}  // namespace automl_ext
