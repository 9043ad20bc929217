// Gradient of categorical_log_probs.
#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <optional>
#include <tuple>

#include "../common/autograd.h"

namespace automl_ext::policy_autograd {

using at::Tensor;
using autograd::Grads;
using autograd::variable_list;
using Pair = std::tuple<Tensor, Tensor>;
using Trained = std::tuple<Tensor, Tensor, Tensor>;
using Optional = const std::optional<Tensor>&;

constexpr const char* kCategorical = "categorical_log_probs";

// Saved: logits, actions, statistics.
struct CategoricalGrad {
  static constexpr const char* kName = "CategoricalLogProbsBackward";
  variable_list fused(const Grads& g) const {
    static const auto op = autograd::find_op<Tensor(Optional, Optional, const Tensor&, const Tensor&, Optional)>(
        "automl_ext::_categorical_log_probs_backward");
    const auto given = [&](size_t i) { return g.out[i].defined() ? std::optional(g.out[i]) : std::nullopt; };
    return {op.call(given(0), given(1), g.saved[0], g.saved[1], g.saved[2]), Tensor()};
  }
  variable_list composite(const Grads& g) const {
    const Tensor log_p = autograd::wide(g.saved[0]).log_softmax(-1), p = log_p.exp();
    const Tensor plogp = at::where(p == 0, at::zeros_like(p), p * at::where(p == 0, at::zeros_like(p), log_p));
    Tensor grad = at::zeros_like(p);
    if (g.out[0].defined()) {
      const Tensor of_log_prob = autograd::wide(g.out[0]).unsqueeze(-1);
      grad = grad + grad.scatter(-1, g.saved[1].unsqueeze(-1), 1.0) * of_log_prob - p * of_log_prob;
    }
    if (g.out[1].defined()) grad = grad - autograd::wide(g.out[1]).unsqueeze(-1) * (plogp - p * plogp.sum(-1, true));
    return autograd::narrow({grad, Tensor()}, g.saved[0].scalar_type());
  }
};

// Differentiable too: if calls of torch.func.grad are nested, the outer one differentiates this function. The statistics
// are constants: composites do not use them.
Trained trained_autograd(c10::DispatchKeySet keys, const Tensor& logits, const Tensor& actions) {
  static const auto op =
      autograd::find_op<Trained(const Tensor&, const Tensor&)>("automl_ext::_categorical_log_probs_trained");
  const auto node = autograd::make_node(kCategorical, CategoricalGrad{}, logits, actions);
  auto [log_probs, entropy, statistics] = autograd::redispatch(op, keys, logits, actions);
  if (node) {
    torch::autograd::set_history(log_probs, node);
    torch::autograd::set_history(entropy, node);
    node->save_input(logits);
    node->save_input(actions);
    node->save_input(statistics);
  }
  return {log_probs, entropy, statistics};
}

Pair categorical_autograd(c10::DispatchKeySet keys, const Tensor& logits, const Tensor& actions) {
  static const auto op = autograd::find_op<Pair(const Tensor&, const Tensor&)>("automl_ext::categorical_log_probs");
  if (torch::autograd::compute_requires_grad(logits)) {
    auto [log_probs, entropy, statistics] = trained_autograd(keys, logits, actions);
    return {log_probs, entropy};
  }
  autograd::check_no_forward_ad(kCategorical, logits);
  return autograd::redispatch(op, keys, logits, actions);
}

}  // namespace automl_ext::policy_autograd

TORCH_LIBRARY_IMPL(automl_ext, Autograd, m) {
  using namespace automl_ext::policy_autograd;
  m.impl("categorical_log_probs", TORCH_FN(categorical_autograd));
  m.impl("_categorical_log_probs_trained", TORCH_FN(trained_autograd));
}
