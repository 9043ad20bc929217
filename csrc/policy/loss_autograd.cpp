// Gradient of policy_gradient_loss, which the forward pass computes.
#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "../common/autograd.h"

namespace automl_ext::loss_autograd {

using at::Tensor;
using autograd::Grads;
using autograd::variable_list;
using Optional = const std::optional<Tensor>&;
using Losses = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using Trained = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
template <class Result>
using Signature = Result(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, Optional, Optional,
                         Optional, double, double, double, double);

constexpr const char* kLoss = "policy_gradient_loss";

// Inputs: log_probs, entropy, values. Saved: see trained_autograd.
struct LossGrad {
  static constexpr const char* kName = "PolicyGradientLossBackward";
  double clip, value_clip, vf_coef, ent_coef;

  // The weight of each element: a tensor, or a number as one.
  static Tensor weighted(const Tensor& grad, const Tensor& weights, const Tensor& like) {
    if (weights.defined()) return weights * grad;
    return (grad / at::Scalar(like.sym_numel())).expand_symint(like.sym_sizes());  // sizes may be symbolic
  }
  variable_list fused(const Grads& g) const {
    // The kernel's w · slope underflows in float16 before a scaled loss's gradient could enlarge it.
    if (g.saved[0].scalar_type() == at::kHalf) return composite(g);
    const Tensor& grad = g.out[0];
    variable_list result(3);
    if (g.needs[0]) result[0] = g.saved[7] * grad;
    if (g.needs[1] && ent_coef != 0) result[1] = weighted(grad * -ent_coef, g.saved[6], g.saved[0]);
    if (g.needs[2]) result[2] = g.saved[8] * grad;
    return result;
  }
  variable_list composite(const Grads& g) const {
    const auto constant = [&](size_t i) {
      return g.saved[i].defined() ? autograd::wide(g.saved[i].detach()) : Tensor();
    };
    const Tensor log_probs = autograd::wide(g.saved[0]), values = autograd::wide(g.saved[1]), a = constant(2);
    const Tensor target = constant(3), old_log_probs = constant(4), old_values = constant(5);
    const Tensor w = weighted(autograd::wide(g.out[0]), constant(6), log_probs);
    Tensor slope = a;
    if (old_log_probs.defined()) {
      const Tensor ratio = (log_probs - old_log_probs).exp(), gain = ratio * a;
      slope = at::where(ratio.clamp(1 - clip, 1 + clip) * a < gain, at::zeros_like(gain), gain);
    }
    Tensor miss = target - values;
    if (old_values.defined()) {
      const Tensor change = values - old_values, near = change.clamp(-value_clip, value_clip);
      const Tensor other = target - (old_values + near);
      miss = at::where(other * other > miss * miss, at::where(change == near, other, at::zeros_like(other)), miss);
    }
    return autograd::narrow({-(w * slope), ent_coef == 0 ? Tensor() : w * -ent_coef, w * (-2 * vf_coef * miss)},
                            g.saved[0].scalar_type());
  }
};

// Differentiable too: if calls of torch.func.grad are nested, the outer one differentiates this function.
Trained trained_autograd(c10::DispatchKeySet keys, const Tensor& log_probs, const Tensor& entropy, const Tensor& values,
                         const Tensor& advantages, const Tensor& returns, Optional old_log_probs, Optional old_values,
                         Optional weights, double clip, double value_clip, double vf_coef, double ent_coef) {
  static const auto op = autograd::find_op<Signature<Trained>>("automl_ext::_policy_gradient_loss_trained");
  const LossGrad grad{std::min(clip, 1e30), std::min(value_clip, 1e30), vf_coef, ent_coef};
  const auto node = autograd::make_node(kLoss, grad, log_probs, entropy, values);
  Trained result = autograd::redispatch(op, keys, log_probs, entropy, values, advantages, returns, old_log_probs,
                                        old_values, weights, clip, value_clip, vf_coef, ent_coef);
  if (node) {
    torch::autograd::set_history(std::get<0>(result), node);
    for (const Tensor* x : {&log_probs, &values, &advantages, &returns}) node->save_input(*x);
    for (const auto* x : {&old_log_probs, &old_values, &weights}) node->save_input(x->value_or(Tensor()));
    node->save_input(std::get<4>(result));
    node->save_input(std::get<5>(result));
  }
  return result;
}

Losses loss_autograd(c10::DispatchKeySet keys, const Tensor& log_probs, const Tensor& entropy, const Tensor& values,
                     const Tensor& advantages, const Tensor& returns, Optional old_log_probs, Optional old_values,
                     Optional weights, double clip, double value_clip, double vf_coef, double ent_coef) {
  static const auto op = autograd::find_op<Signature<Losses>>("automl_ext::policy_gradient_loss");
  if (torch::autograd::compute_requires_grad(log_probs, entropy, values)) {
    auto [total, policy, value, mean, of_log_probs, of_values] =
        trained_autograd(keys, log_probs, entropy, values, advantages, returns, old_log_probs, old_values, weights,
                         clip, value_clip, vf_coef, ent_coef);
    return {total, policy, value, mean};
  }
  for (const Tensor* x : {&log_probs, &entropy, &values}) autograd::check_no_forward_ad(kLoss, *x);
  return autograd::redispatch(op, keys, log_probs, entropy, values, advantages, returns, old_log_probs, old_values,
                              weights, clip, value_clip, vf_coef, ent_coef);
}

}  // namespace automl_ext::loss_autograd

TORCH_LIBRARY_IMPL(automl_ext, Autograd, m) {
  m.impl("policy_gradient_loss", TORCH_FN(automl_ext::loss_autograd::loss_autograd));
  m.impl("_policy_gradient_loss_trained", TORCH_FN(automl_ext::loss_autograd::trained_autograd));
}
