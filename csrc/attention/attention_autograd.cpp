// Gradients of attention with entmax-1.5 weights in query, key and value.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>

#include <limits>
#include <optional>
#include <tuple>

#include "../common/autograd.h"
#include "../entmax/entmax_gradient.h"

namespace automl_ext::attention_autograd {

using autograd::Grads;
using autograd::variable_list;
using Mask = std::optional<at::Tensor>;
using Forward = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const Mask&, bool, double);
using Saved = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Trained = Saved(const at::Tensor&, const at::Tensor&, const at::Tensor&, const Mask&, bool, double);
using Backward = std::tuple<at::Tensor, at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                                const at::Tensor&, const Mask&, bool, double,
                                                                const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                                const at::Tensor&);

// Saved: query, key, value, the mask (undefined without one), then what the forward pass returns beside the result.
struct AttentionGrad {
  static constexpr const char* kName = "Entmax15AttentionBackward";
  bool is_causal;
  double scale;

  variable_list fused(const Grads& g) const {
    static const auto op = autograd::find_op<Backward>("automl_ext::_entmax15_attention_backward");
    const Mask mask = g.saved[3].defined() ? Mask(g.saved[3]) : Mask();
    auto [q, k, v] = op.call(g.out[0], g.saved[0], g.saved[1], g.saved[2], mask, is_causal, scale, g.saved[4],
                             g.saved[5], g.saved[6], g.saved[7]);
    variable_list all = {q, k, v};
    for (size_t i = 0; i < 3; ++i)
      if (!g.needs[i]) all[i].reset();
    return all;
  }

  variable_list composite(const Grads& g) const {
    static const auto entmax = autograd::find_op<at::Tensor(const at::Tensor&, int64_t)>("automl_ext::entmax15");
    const at::Tensor q = autograd::wide(g.saved[0]), grad = autograd::wide(g.out[0]);
    const bool grouped = q.dim() > 2 && q.sym_size(-3) != g.saved[1].sym_size(-3);
    const auto group = grouped ? q.sym_size(-3) / g.saved[1].sym_size(-3) : c10::SymInt(1);
    const auto repeated = [&](const at::Tensor& x) {
      return grouped ? autograd::wide(x).repeat_interleave_symint(group, -3) : autograd::wide(x);
    };
    const auto added = [&](const at::Tensor& x) {
      return grouped ? x.unflatten_symint(-3, {x.sym_size(-3) / group, group}).sum(-3) : x;
    };
    const at::Tensor k = repeated(g.saved[1]), v = repeated(g.saved[2]);
    at::Tensor scores = at::matmul(q * scale, k.mT());
    const double infinity = std::numeric_limits<double>::infinity();
    if (is_causal)
      scores = scores.masked_fill(
          at::ones_symint({scores.sym_size(-2), scores.sym_size(-1)}, scores.options().dtype(at::kBool))
              .tril()
              .logical_not(),
          -infinity);
    const at::Tensor& mask = g.saved[3];
    if (mask.defined())
      scores = mask.scalar_type() == at::kBool ? scores.masked_fill(mask.logical_not(), -infinity)
                                               : scores + mask.to(scores.scalar_type());
    const at::Tensor p = entmax.call(scores, -1);
    const at::Tensor slopes = centered(masked_sqrt(p), at::matmul(grad, v.mT()), -1) * scale;
    variable_list all(3);
    if (g.needs[0]) all[0] = at::matmul(slopes, k);
    if (g.needs[1]) all[1] = added(at::matmul(slopes.mT(), q));
    if (g.needs[2]) all[2] = added(at::matmul(p.mT(), grad));
    return autograd::narrow(std::move(all), g.saved[0].scalar_type());
  }
};

// Differentiable too: if calls of torch.func.grad are nested, the outer one differentiates this function.
Saved trained(c10::DispatchKeySet keys, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
              const Mask& mask, bool is_causal, double scale) {
  static const auto op = autograd::find_op<Trained>("automl_ext::_entmax15_attention_trained");
  TORCH_CHECK_NOT_IMPLEMENTED(!mask || !mask->requires_grad() || !at::GradMode::is_enabled(),
                              "entmax15_attention: attn_mask: the op has no gradient of the mask");
  autograd::check_no_forward_ad("entmax15_attention", mask);
  const auto node = autograd::make_node("entmax15_attention", AttentionGrad{is_causal, scale}, query, key, value);
  Saved all = autograd::redispatch(op, keys, query, key, value, mask, is_causal, scale);
  if (node) {
    torch::autograd::set_history(std::get<0>(all), node);
    for (const auto* x : {&query, &key, &value}) node->save_input(*x);
    node->save_input(mask ? *mask : at::Tensor());
    for (const auto* x : {&std::get<1>(all), &std::get<2>(all), &std::get<3>(all), &std::get<4>(all)})
      node->save_input(*x);
  }
  return all;
}

at::Tensor attention(c10::DispatchKeySet keys, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const Mask& mask, bool is_causal, double scale) {
  static const auto op = autograd::find_op<Forward>("automl_ext::entmax15_attention");
  if (torch::autograd::compute_requires_grad(query, key, value, mask))
    return std::get<0>(trained(keys, query, key, value, mask, is_causal, scale));
  for (const auto* x : {&query, &key, &value}) autograd::check_no_forward_ad("entmax15_attention", *x);
  autograd::check_no_forward_ad("entmax15_attention", mask);
  return autograd::redispatch(op, keys, query, key, value, mask, is_causal, scale);
}

}  // namespace automl_ext::attention_autograd

TORCH_LIBRARY_IMPL(automl_ext, Autograd, m) {
  m.impl("entmax15_attention", TORCH_FN(automl_ext::attention_autograd::attention));
  m.impl("_entmax15_attention_trained", TORCH_FN(automl_ext::attention_autograd::trained));
}
