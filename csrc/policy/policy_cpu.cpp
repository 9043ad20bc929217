// CPU entry function and gradient of categorical_log_probs.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

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
using Pair = std::tuple<Tensor, Tensor>;
using Optional = const std::optional<Tensor>&;

constexpr const char* kCategorical = "categorical_log_probs";

// Checks the shapes, and that all actions exist.
Tensor checked_actions(const Tensor& logits, const Tensor& actions) {
  TORCH_CHECK_VALUE(logits.dim() > 0 && logits.size(-1) > 0, kCategorical, ": logits: expected at least 1 action, got ",
                    logits.sizes());
  const auto shape = logits.sizes().slice(0, logits.dim() - 1);
  check_device(kCategorical, "actions", actions, logits);
  TORCH_CHECK_TYPE(actions.scalar_type() == at::kLong, kCategorical, ": actions: expected an int64 tensor, got ",
                   actions.scalar_type());
  TORCH_CHECK_VALUE(actions.sizes() == shape, kCategorical, ": actions: expected shape ", shape, ", got ",
                    actions.sizes());
  Tensor contiguous = actions.contiguous();
  const int64_t* const each = contiguous.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < contiguous.numel(); ++i)
    TORCH_CHECK_VALUE(each[i] >= 0 && each[i] < logits.size(-1), kCategorical, ": actions: expected values in [0, ",
                      logits.size(-1), "), got ", each[i]);
  return contiguous;
}

Pair categorical(const Tensor& logits, const Tensor& actions) {
  const DType dtype = dtype_of(logits, kCategorical, "logits");
  const Tensor a = checked_actions(logits, actions), x = logits.contiguous();
  Tensor log_probs = at::empty(actions.sizes(), x.options()), entropy = at::empty_like(log_probs);
  const CategoricalCall call{log_probs.numel(),
                             x.size(-1),
                             x.const_data_ptr(),
                             a.const_data_ptr<int64_t>(),
                             log_probs.mutable_data_ptr(),
                             entropy.mutable_data_ptr()};
  parallel_rows(call.rows, call.n,
                [&](int64_t begin, int64_t end) { policy_kernels().categorical[dtype](call, begin, end); });
  return {log_probs, entropy};
}

Tensor categorical_backward(Optional grad_log_probs, Optional grad_entropy, const Tensor& logits,
                            const Tensor& actions) {
  const DType dtype = dtype_of(logits, kCategorical, "logits");
  const Tensor a = checked_actions(logits, actions), x = logits.contiguous();
  const auto checked = [&](const char* name, Optional grad) {
    if (!grad) return Tensor();
    TORCH_CHECK_VALUE(
        grad->scalar_type() == x.scalar_type() && grad->device() == x.device() && grad->sizes() == a.sizes(),
        kCategorical, ": ", name, ": expected a tensor like log_probs");
    return grad->contiguous();
  };
  const Tensor of_log_probs = checked("grad_log_probs", grad_log_probs),
               of_entropy = checked("grad_entropy", grad_entropy);
  Tensor grad = at::empty_like(x);
  const CategoricalBackward call{a.numel(),
                                 x.size(-1),
                                 x.const_data_ptr(),
                                 a.const_data_ptr<int64_t>(),
                                 of_log_probs.defined() ? of_log_probs.const_data_ptr() : nullptr,
                                 of_entropy.defined() ? of_entropy.const_data_ptr() : nullptr,
                                 grad.mutable_data_ptr()};
  parallel_rows(call.rows, call.n,
                [&](int64_t begin, int64_t end) { policy_kernels().categorical_backward[dtype](call, begin, end); });
  return grad;
}

// Saved: logits, actions.
struct CategoricalGrad {
  static constexpr const char* kName = "CategoricalLogProbsBackward";
  variable_list fused(const Grads& g) const {
    static const auto op = autograd::find_op<Tensor(Optional, Optional, const Tensor&, const Tensor&)>(
        "automl_ext::_categorical_log_probs_backward");
    const auto given = [&](size_t i) { return g.out[i].defined() ? std::optional(g.out[i]) : std::nullopt; };
    return {op.call(given(0), given(1), g.saved[0], g.saved[1]), Tensor()};
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
Pair categorical_autograd(c10::DispatchKeySet keys, const Tensor& logits, const Tensor& actions) {
  static const auto op = autograd::find_op<Pair(const Tensor&, const Tensor&)>("automl_ext::categorical_log_probs");
  const auto node = autograd::make_node(kCategorical, CategoricalGrad{}, logits, actions);
  auto [log_probs, entropy] = autograd::redispatch(op, keys, logits, actions);
  if (node) {
    torch::autograd::set_history(log_probs, node);
    torch::autograd::set_history(entropy, node);
    node->save_input(logits);
    node->save_input(actions);
  }
  return {log_probs, entropy};
}

}  // namespace
}  // namespace automl_ext

TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  using namespace automl_ext;
  m.impl("categorical_log_probs", TORCH_FN(categorical));
  m.impl("_categorical_log_probs_backward", TORCH_FN(categorical_backward));
}

TORCH_LIBRARY_IMPL(automl_ext, Autograd, m) {
  using namespace automl_ext;
  m.impl("categorical_log_probs", TORCH_FN(categorical_autograd));
}
