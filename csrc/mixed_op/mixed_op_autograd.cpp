// Gradients of mixed-op aggregation: dxₖ = wₖ·g, dwₖ = ⟨g, xₖ⟩.
#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/select.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros_like.h>

#include "../common/autograd.h"

namespace automl_ext::mixed_op_autograd {

using autograd::Grads;
using autograd::variable_list;
using Forward = at::Tensor(at::TensorList, const at::Tensor&, at::IntArrayRef);
using Backward = std::tuple<std::vector<at::Tensor>, at::Tensor>(const at::Tensor&, at::TensorList, const at::Tensor&,
                                                                 at::IntArrayRef, const c10::List<bool>&);

// Inputs of the node: the n tensors, then weights. Saved: weights, then the n tensors if weights needs a gradient.
struct MixedOpGrad {
  static constexpr const char* kName = "MixedOpBackward";
  std::vector<int64_t> positions;

  variable_list fused(const Grads& g) const {
    static const auto op = autograd::find_op<Backward>("automl_ext::_mixed_op_backward");
    const size_t n = positions.size();
    c10::List<bool> input_needs;
    for (size_t i = 0; i < n; ++i) input_needs.push_back(g.needs[i]);
    const bool weights_need = g.needs[n];
    const variable_list inputs(g.saved.begin() + 1, weights_need ? g.saved.end() : g.saved.begin() + 1);
    auto [grad_inputs, grad_weights] = op.call(g.out[0], inputs, g.saved[0], positions, input_needs);
    variable_list result(n + 1);
    size_t next = 0;
    for (size_t i = 0; i < n; ++i)
      if (g.needs[i]) result[i] = grad_inputs[next++];
    if (weights_need) result[n] = grad_weights;
    return result;
  }

  variable_list composite(const Grads& g) const {
    const size_t n = positions.size();
    const at::Tensor& weights = g.saved[0];
    const auto dtype = g.out[0].scalar_type(), wide = at::toOpMathType(dtype);  // half types: compute in float
    const at::Tensor grad = g.out[0].to(wide);
    variable_list result(n + 1);
    for (size_t i = 0; i < n; ++i)
      if (g.needs[i]) result[i] = (weights.select(0, positions[i]).to(wide) * grad).to(dtype);
    if (!g.needs[n]) return result;
    variable_list dots(weights.size(0), at::zeros_like(weights.select(0, 0)));
    for (size_t i = 0; i < n; ++i) {  // inputs may share a weight
      at::Tensor& dot = dots[positions[i]];
      dot = dot + (grad * g.saved[i + 1].to(wide)).sum().to(weights.scalar_type());
    }
    result[n] = at::stack(dots);
    return result;
  }
};

at::Tensor mixed_op(c10::DispatchKeySet keys, at::TensorList inputs, const at::Tensor& weights,
                    at::IntArrayRef positions) {
  static const auto op = autograd::find_op<Forward>("automl_ext::mixed_op");
  const auto node = autograd::make_node("mixed_op", MixedOpGrad{positions.vec()}, inputs, weights);
  at::Tensor y = autograd::redispatch(op, keys, inputs, weights, positions);
  if (node) {
    torch::autograd::set_history(y, node);
    node->save_input(weights);
    if (weights.requires_grad())
      for (const auto& x : inputs) node->save_input(x);
  }
  return y;
}

}  // namespace automl_ext::mixed_op_autograd

TORCH_LIBRARY_IMPL(automl_ext, Autograd, m) { m.impl("mixed_op", TORCH_FN(automl_ext::mixed_op_autograd::mixed_op)); }
