// CPU entry functions of mixed-op aggregation.

#include <algorithm>

#include "../common/kernel_library.h"
#include "mixed_op.h"
#include "mixed_op_entry.h"

namespace automl_ext::mixed_op_cpu {
namespace {

constexpr int64_t kTile = 8192;  // elements per partial dot product
// Gradients of more bytes than this are evicted from the cache before they are read, so they are written past it.
constexpr int64_t kCacheBytes = 16 << 20;

// The weights as doubles. Unchecked: the caller checks the positions.
std::vector<double> doubles(const Tensor& weights) {
  // A conversion of a few numbers by torch would take longer than a small call.
  const bool is_float = weights.scalar_type() == ScalarType::Float;
  const Tensor all = contiguous(is_float ? weights : to_dtype(weights, ScalarType::Double));
  const int64_t n = all.numel();
  if (is_float) return {all.const_data_ptr<float>(), all.const_data_ptr<float>() + n};
  return {all.const_data_ptr<double>(), all.const_data_ptr<double>() + n};
}

Tensor forward(TensorList inputs, const Tensor& weights, IntList positions) {
  const std::vector<double> w = doubles(weights);
  // An input of weight 0 is not read: it may hold any values, NaN included.
  const auto reads = [&](size_t i) { return w[positions[i]] != 0; };
  return mixed_op_forward(inputs, weights, positions, reads, [&](DType dtype, const auto& all, const Tensor& y) {
    std::vector<const void*> pointers;
    std::vector<double> used;
    for (size_t i = 0; i < all.size(); ++i) {
      if (!reads(i)) continue;
      pointers.push_back(all[i]);
      used.push_back(w[positions[i]]);
    }
    const auto kernel = mixed_op_kernels().forward[dtype];
    parallel_rows(y.numel(), pointers.size(), [&](int64_t begin, int64_t end) {
      kernel(pointers.data(), used.data(), int64_t(used.size()), y.mutable_data_ptr(), begin, end);
    });
  });
}

Tensor run_backward(const MixedOpBackward& pass, const Tensor& weights, IntList positions) {
  const std::vector<double> all = doubles(weights);
  std::vector<double> w;
  for (const int64_t k : positions) w.push_back(all[k]);
  const auto kernel = mixed_op_kernels().backward[pass.dtype];
  const int64_t count = int64_t(positions.size()), n = pass.grad.numel(), tiles = (n + kTile - 1) / kTile;
  const int64_t gradients = std::count_if(pass.grad_inputs.begin(), pass.grad_inputs.end(), [](void* p) { return p; });
  const bool bypass_cache = gradients * n * int64_t(pass.grad.element_size()) > kCacheBytes;
  // Dot products are summed per tile, then over tiles in order: the result does not depend on the number of threads.
  std::vector<double> dots(pass.weights_need ? tiles * count : 0);
  parallel_rows(tiles, kTile * count, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile)
      kernel(pass.grad.const_data_ptr(), pass.inputs.data(), w.data(), count, pass.grad_inputs.data(),
             pass.weights_need ? dots.data() + tile * count : nullptr, tile * kTile, std::min(n, (tile + 1) * kTile),
             bypass_cache);
  });
  if (!pass.weights_need) return {};
  const Tensor grad_weights = zeros(weights.sizes(), ScalarType::Double, weights);
  double* sums = grad_weights.mutable_data_ptr<double>();
  for (int64_t tile = 0; tile < tiles; ++tile)
    for (int64_t i = 0; i < count; ++i) sums[positions[i]] += dots[tile * count + i];
  return to_dtype(grad_weights, weights.scalar_type());
}

std::tuple<std::vector<Tensor>, Tensor> backward(const Tensor& grad, TensorList inputs, const Tensor& weights,
                                                 IntList positions, const std::vector<bool>& input_needs) {
  return mixed_op_backward(grad, inputs, weights, positions, input_needs,
                           [&](const MixedOpBackward& pass) { return run_backward(pass, weights, positions); });
}

}  // namespace
}  // namespace automl_ext::mixed_op_cpu

STABLE_TORCH_LIBRARY_FRAGMENT(automl_ext, m) {
  // inputs: n tensors of one shape; weights [K]; positions[i] is the index of the weight of inputs[i].
  m.def("mixed_op(Tensor[] inputs, Tensor weights, int[] positions) -> Tensor");
  // grad has the shape of an input. inputs is empty unless the weights need a gradient. input_needs: one flag per input.
  // Returns the gradients of the inputs that need one, in order, and that of the weights ([0] if not needed).
  m.def(
      "_mixed_op_backward(Tensor grad, Tensor[] inputs, Tensor weights, int[] positions, bool[] input_needs) "
      "-> (Tensor[], Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  using namespace automl_ext;
  using namespace automl_ext::mixed_op_cpu;
  implement<forward>(m, "mixed_op", true);
  implement<backward>(m, "_mixed_op_backward", true);
}
