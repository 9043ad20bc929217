// Gradients of multilayer perceptrons. Without a CPU kernel, a call is a composite of ATen ops with gradients of their own.
#include <algorithm>
#include <optional>
#include <tuple>

#include "../common/autograd.h"
#include "mlp.h"
#include "mlp_composite.h"

namespace automl_ext::mlp_autograd {

using autograd::Grads;
using autograd::variable_list;
using Forward = at::Tensor(const at::Tensor&, at::TensorList, at::TensorList, int64_t, bool, bool);
using Trained = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, at::TensorList, at::TensorList, int64_t, bool,
                                                   bool);
using Backward = std::vector<at::Tensor>(const at::Tensor&, const at::Tensor&, at::TensorList, const at::Tensor&,
                                         const std::optional<at::Tensor>&, int64_t, bool, bool, bool, bool, bool);

// Inputs of the node: x, the weights, the biases. Saved: the same, what the forward pass kept and, if the gradient reads it,
// the result.
struct MlpGrad {
  static constexpr const char* kName = "MlpBackward";
  int64_t layers;
  bool has_biases;
  int64_t activation;
  bool activate_last, stacked_x;

  int64_t parameters() const { return has_biases ? 2 * layers : layers; }
  at::TensorList weights(const Grads& g) const { return at::TensorList(g.saved.data() + 1, layers); }
  at::TensorList biases(const Grads& g) const {
    return at::TensorList(g.saved.data() + 1 + layers, parameters() - layers);
  }

  variable_list fused(const Grads& g) const {
    static const auto op = autograd::find_op<Backward>("automl_ext::_mlp_backward");
    const size_t kept = 1 + parameters();
    const bool needs_parameters = std::find(g.needs.begin() + 1, g.needs.end(), true) != g.needs.end();
    const std::optional<at::Tensor> y = g.saved.size() > kept + 1 ? std::optional(g.saved[kept + 1]) : std::nullopt;
    auto grads = op.call(g.out[0], g.saved[0], weights(g), g.saved[kept], y, activation, activate_last, stacked_x,
                         has_biases, g.needs[0], needs_parameters);
    variable_list result(kept);
    size_t next = 0;
    if (g.needs[0]) result[0] = std::move(grads[next++]);
    for (size_t i = 1; i < kept && needs_parameters; ++i, ++next)
      if (g.needs[i]) result[i] = std::move(grads[next]);
    return result;
  }

  variable_list composite(const Grads& g) const {
    auto all =
        mlp_gradients(g.out[0], g.saved[0], weights(g), biases(g), activation, activate_last, stacked_x, g.needs[0]);
    for (size_t i = 0; i < all.size(); ++i)
      if (!g.needs[i]) all[i].reset();
    return all;
  }
};

// Differentiable too: if calls of torch.func.grad are nested, the outer one differentiates this function.
std::tuple<at::Tensor, at::Tensor> trained(c10::DispatchKeySet keys, const at::Tensor& x, at::TensorList weights,
                                           at::TensorList biases, int64_t activation, bool activate_last,
                                           bool stacked_x) {
  static const auto op = autograd::find_op<Trained>("automl_ext::_mlp_trained");
  const MlpGrad grad = {int64_t(weights.size()), !biases.empty(), activation, activate_last, stacked_x};
  const auto node = autograd::make_node("mlp", grad, x, weights, biases);
  auto [y, kept] = autograd::redispatch(op, keys, x, weights, biases, activation, activate_last, stacked_x);
  if (node) {
    torch::autograd::set_history(y, node);
    node->save_input(x);
    for (const auto& w : weights) node->save_input(w);
    for (const auto& b : biases) node->save_input(b);
    node->save_input(kept);
    if (activate_last && !keeps_slope(activation)) node->save_output(y);
  }
  return {y, kept};
}

at::Tensor mlp(c10::DispatchKeySet keys, const at::Tensor& x, at::TensorList weights, at::TensorList biases,
               int64_t activation, bool activate_last, bool stacked_x) {
  static const auto op = autograd::find_op<Forward>("automl_ext::mlp");
  for (const auto& w : weights) check_device("mlp", "weights", w, x);
  for (const auto& b : biases) check_device("mlp", "biases", b, x);
  if (!has_kernel(x)) return mlp_composite(x, weights, biases, activation, activate_last, stacked_x);
  if (torch::autograd::compute_requires_grad(x, weights, biases))
    return std::get<0>(trained(keys, x, weights, biases, activation, activate_last, stacked_x));
  autograd::check_no_forward_ad("mlp", x);
  autograd::check_no_forward_ad("mlp", weights);
  autograd::check_no_forward_ad("mlp", biases);
  return autograd::redispatch(op, keys, x, weights, biases, activation, activate_last, stacked_x);
}

}  // namespace automl_ext::mlp_autograd

TORCH_LIBRARY_IMPL(automl_ext, Autograd, m) {
  m.impl("mlp", TORCH_FN(automl_ext::mlp_autograd::mlp));
  m.impl("_mlp_trained", TORCH_FN(automl_ext::mlp_autograd::trained));
}
