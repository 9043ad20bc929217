// CPU entry functions and gradient of policy_gradient_loss. The forward pass computes the gradient, too.
#include <ATen/EmptyTensor.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/SmallVector.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "../common/autograd.h"
#include "../common/tensors.h"
#include "policy.h"

namespace automl_ext {
namespace {

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
constexpr int64_t kBlock = 4096;  // elements whose sums are added first, for every number of threads

Tensor empty(at::IntArrayRef sizes, const Tensor& like) {
  return at::detail::empty_cpu(sizes, like.scalar_type(), /*pin_memory=*/false, std::nullopt);
}

Tensor scalar(double value, const Tensor& like) {
  Tensor y = empty({}, like);
  switch (y.scalar_type()) {
    case at::kDouble: *y.mutable_data_ptr<double>() = value; break;
    case at::kFloat: *y.mutable_data_ptr<float>() = float(value); break;
    default: y.fill_(value);
  }
  return y;
}

// of_log_probs and of_values are null if no gradient is needed.
Losses run(const Tensor& log_probs, const Tensor& entropy, const Tensor& values, const Tensor& advantages,
           const Tensor& returns, Optional old_log_probs, Optional old_values, Optional weights, double clip,
           double value_clip, double vf_coef, double ent_coef, void* of_log_probs, void* of_values) {
  const DType dtype = dtype_of(log_probs, kLoss, "log_probs");
  c10::SmallVector<Tensor, 8> given;  // keeps copies alive
  const auto data = [&](const char* name, const Tensor& x) {
    check_like(kLoss, name, x, log_probs);
    given.push_back(x.contiguous());
    return given.back().const_data_ptr();
  };
  const auto maybe = [&](const char* name, Optional x) { return x ? data(name, *x) : nullptr; };
  const int64_t n = log_probs.numel();
  TORCH_CHECK_VALUE(n || weights, kLoss, ": log_probs: expected at least one element, got shape ", log_probs.sizes());
  TORCH_CHECK_VALUE(clip > 0, kLoss, ": clip: expected a positive number, got ", clip);
  TORCH_CHECK_VALUE(value_clip > 0, kLoss, ": value_clip: expected a positive number, got ", value_clip);
  const PolicyLoss call{data("log_probs", log_probs),
                        data("entropy", entropy),
                        data("values", values),
                        data("advantages", advantages),
                        data("returns", returns),
                        maybe("old_log_probs", old_log_probs),
                        maybe("old_values", old_values),
                        maybe("weights", weights),
                        of_log_probs,
                        of_values,
                        1 / double(n),
                        std::min(clip, 1e30),
                        std::min(value_clip, 1e30),
                        vf_coef};
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  c10::SmallVector<double, 3> sums(3 * blocks);
  parallel_rows(blocks, 4 * kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block)
      policy_kernels().loss[dtype](call, sums.data() + 3 * block, block * kBlock, std::min((block + 1) * kBlock, n));
  });
  double total[3] = {};
  for (int64_t i = 0; i < 3 * blocks; ++i) total[i % 3] += sums[i];
  const double loss = vf_coef * total[1] - total[0] - (ent_coef == 0 ? 0 : ent_coef * total[2]);
  return {scalar(loss, log_probs), scalar(-total[0], log_probs), scalar(total[1], log_probs),
          scalar(total[2], log_probs)};
}

Losses loss(const Tensor& log_probs, const Tensor& entropy, const Tensor& values, const Tensor& advantages,
            const Tensor& returns, Optional old_log_probs, Optional old_values, Optional weights, double clip,
            double value_clip, double vf_coef, double ent_coef) {
  return run(log_probs, entropy, values, advantages, returns, old_log_probs, old_values, weights, clip, value_clip,
             vf_coef, ent_coef, nullptr, nullptr);
}

Trained trained(const Tensor& log_probs, const Tensor& entropy, const Tensor& values, const Tensor& advantages,
                const Tensor& returns, Optional old_log_probs, Optional old_values, Optional weights, double clip,
                double value_clip, double vf_coef, double ent_coef) {
  Tensor of_log_probs = empty(log_probs.sizes(), log_probs), of_values = empty(log_probs.sizes(), log_probs);
  auto [total, policy, value, mean] =
      run(log_probs, entropy, values, advantages, returns, old_log_probs, old_values, weights, clip, value_clip,
          vf_coef, ent_coef, of_log_probs.mutable_data_ptr(), of_values.mutable_data_ptr());
  return {total, policy, value, mean, of_log_probs, of_values};
}

// Inputs: log_probs, entropy, values. Saved: see trained_autograd.
struct LossGrad {
  static constexpr const char* kName = "PolicyGradientLossBackward";
  double clip, value_clip, vf_coef, ent_coef;

  // The weight of each element: a tensor, or a number as one.
  static Tensor weighted(const Tensor& grad, const Tensor& weights, const Tensor& like) {
    return weights.defined() ? weights * grad : (grad / double(like.numel())).expand(like.sizes());
  }
  variable_list fused(const Grads& g) const {
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

}  // namespace
}  // namespace automl_ext

TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  m.impl("policy_gradient_loss", TORCH_FN(automl_ext::loss));
  m.impl("_policy_gradient_loss_trained", TORCH_FN(automl_ext::trained));
}

TORCH_LIBRARY_IMPL(automl_ext, Autograd, m) {
  m.impl("policy_gradient_loss", TORCH_FN(automl_ext::loss_autograd));
  m.impl("_policy_gradient_loss_trained", TORCH_FN(automl_ext::trained_autograd));
}
