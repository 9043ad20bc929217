// CPU entry functions of mixed-op aggregation.
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "../common/kernels.h"
#include "../common/tensors.h"

namespace automl_ext {
namespace {

constexpr int64_t kTile = 8192;  // elements: a tile of grad stays in the L1 cache while every input passes by

// weights[positions] as double.
std::vector<double> weights_of(const at::Tensor& weights, at::IntArrayRef positions) {
  const at::Tensor w = weights.to(at::kDouble).contiguous();
  const double* values = w.const_data_ptr<double>();
  std::vector<double> given;
  for (const int64_t k : positions) {
    TORCH_CHECK_INDEX(0 <= k && k < w.numel(), "mixed_op: positions: expected values in [0, ", w.numel() - 1, "], got ",
                      k);
    given.push_back(values[k]);
  }
  return given;
}

// x as a dense block of memory laid out like `like`, so that one flat loop serves all.
at::Tensor dense_like(const at::Tensor& x, const at::Tensor& like) {
  if (x.strides() == like.strides()) return x;
  at::Tensor copy = at::empty_like(like);
  copy.copy_(x);
  return copy;
}

// In the layout of at::empty_like(x), which is what the fake kernel answers.
at::Tensor dense(const at::Tensor& x) {
  return x.is_non_overlapping_and_dense() ? x : at::empty_like(x).copy_(x);
}

at::Tensor forward(at::TensorList inputs, const at::Tensor& weights, at::IntArrayRef positions) {
  TORCH_CHECK_VALUE(!inputs.empty() && inputs.size() == positions.size(),
                    "mixed_op: inputs: expected one or more, as many as positions, got ", inputs.size());
  const at::Tensor first = dense(inputs[0]);
  const auto kernel = kernels().mixed_op.forward[dtype_of(first, "mixed_op", "inputs")];
  const std::vector<double> all_weights = weights_of(weights, positions);
  std::vector<at::Tensor> kept;  // alive while their pointers are used
  std::vector<const void*> pointers;
  std::vector<double> w;
  for (size_t i = 0; i < inputs.size(); ++i) {
    TORCH_CHECK_VALUE(inputs[i].sizes() == first.sizes() && inputs[i].scalar_type() == first.scalar_type(),
                      "mixed_op: inputs: expected tensors of one shape and dtype");
    if (all_weights[i] == 0) continue;  // not read: an operation of weight 0 may hold anything
    kept.push_back(i == 0 ? first : dense_like(inputs[i], first));
    pointers.push_back(kept.back().const_data_ptr());
    w.push_back(all_weights[i]);
  }
  at::Tensor y = at::empty_like(first);
  parallel_rows(y.numel(), pointers.size(), [&](int64_t begin, int64_t end) {
    kernel(pointers.data(), w.data(), int64_t(w.size()), y.mutable_data_ptr(), begin, end);
  });
  return y;
}

std::tuple<std::vector<at::Tensor>, at::Tensor> backward(const at::Tensor& grad_, at::TensorList inputs,
                                                         const at::Tensor& weights, at::IntArrayRef positions,
                                                         const c10::List<bool>& input_needs) {
  const bool weights_need = !inputs.empty();
  TORCH_CHECK_VALUE(input_needs.size() == positions.size() && (!weights_need || inputs.size() == positions.size()),
                    "mixed_op: backward: expected ", positions.size(), " inputs (or none) and input_needs, got ",
                    inputs.size(), " and ", input_needs.size());
  for (const auto& x : inputs) check_like("mixed_op", "grad", grad_, x);
  const at::Tensor like = dense(weights_need ? inputs[0] : grad_);
  const at::Tensor grad = dense_like(grad_, like);
  const auto kernel = kernels().mixed_op.backward[dtype_of(grad, "mixed_op", "grad")];
  const std::vector<double> w = weights_of(weights, positions);
  const int64_t count = int64_t(positions.size()), n = grad.numel(), tiles = (n + kTile - 1) / kTile;

  std::vector<at::Tensor> kept, grad_inputs;
  std::vector<const void*> pointers(count, nullptr);
  std::vector<void*> grad_pointers(count, nullptr);
  for (int64_t i = 0; i < count; ++i) {
    if (weights_need) {
      kept.push_back(dense_like(inputs[i], like));
      pointers[i] = kept.back().const_data_ptr();
    }
    if (input_needs.get(i)) {
      grad_inputs.push_back(at::empty_like(like));
      grad_pointers[i] = grad_inputs.back().mutable_data_ptr();
    }
  }
  // Dot products in two stages of fixed borders: the same sums for any number of threads.
  std::vector<double> dots(weights_need ? tiles * count : 0);
  parallel_rows(tiles, kTile * count, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile)
      kernel(grad.const_data_ptr(), pointers.data(), w.data(), count, grad_pointers.data(),
             weights_need ? dots.data() + tile * count : nullptr, tile * kTile, std::min(n, (tile + 1) * kTile));
  });
  if (!weights_need) return {grad_inputs, at::empty({0}, weights.options())};
  const at::Tensor grad_weights = at::zeros(weights.sizes(), weights.options().dtype(at::kDouble));
  double* sums = grad_weights.mutable_data_ptr<double>();
  for (int64_t tile = 0; tile < tiles; ++tile)
    for (int64_t i = 0; i < count; ++i) sums[positions[i]] += dots[tile * count + i];
  return {grad_inputs, grad_weights.to(weights.scalar_type())};
}

}  // namespace
}  // namespace automl_ext

TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  m.impl("mixed_op", TORCH_FN(automl_ext::forward));
  m.impl("_mixed_op_backward", TORCH_FN(automl_ext::backward));
}
