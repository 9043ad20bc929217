// Gradients of GAE, lambda- and n-step returns. V-trace and Retrace make targets, which have no gradient.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <limits>

#include "../common/autograd.h"

namespace automl_ext::returns_autograd {

using at::Tensor;
using autograd::Grads;
using autograd::narrow;
using autograd::variable_list;
using autograd::wide;
using Optional = const std::optional<Tensor>&;
using Two = std::tuple<Tensor, Tensor>;
using Three = std::tuple<Tensor, Tensor, Tensor>;

using Gae = Two(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, Optional, double, double,
                bool);
using GaeBackward = Three(Optional, Optional, const Tensor&, const Tensor&, Optional, double, double, bool);
using Lambda = Tensor(const Tensor&, const Tensor&, Optional, Optional, Optional, Optional, double, double, bool);
using LambdaBackward = Three(const Tensor&, Optional, Optional, Optional, Optional, Optional, Optional, double, double,
                             bool);
using NStep = Three(const Tensor&, Optional, const Tensor&, const Tensor&, Optional, double, int64_t, bool);
using NStepBackward = Two(const Tensor&, const Tensor&, const Tensor&, Optional, double, int64_t, bool, bool);

const auto& lambda_op() {
  static const auto op = autograd::find_op<Lambda>("automl_ext::lambda_returns");
  return op;
}
const auto& n_step_op() {
  static const auto op = autograd::find_op<NStep>("automl_ext::n_step_returns");
  return op;
}
const auto& n_step_backward_op() {
  static const auto op = autograd::find_op<NStepBackward>("automl_ext::_n_step_returns_backward");
  return op;
}

std::optional<Tensor> optional(const Tensor& x) { return x.defined() ? std::optional<Tensor>(x) : std::nullopt; }
Tensor defined(Optional x) { return x ? *x : Tensor(); }

Tensor keep(const Tensor& mask, const Tensor& x) { return at::where(mask, x, at::zeros_like(x)); }

// Shifts x by one step: the result at step t is x of step t + 1, and 0 at the last step.
Tensor ahead(const Tensor& x) { return at::cat({x.slice(0, 1), at::zeros_like(x.slice(0, 0, 1))}); }

// The flags of scans.inc, as tensors; if invalid steps carry, those of a step and the run of invalid steps after it.
struct Masks {
  Tensor cut, live, valid;
  Tensor last, passes_on;  // if invalid steps carry: the step with V' and the flags; the invalid steps that are no cut
  Masks(const Tensor& like, Optional terminated, Optional truncated, Optional valid_, bool carry) {
    valid = valid_ ? *valid_ : at::ones_like(like, at::kBool);
    const Tensor none = at::zeros_like(valid), ends = terminated ? *terminated : none;
    const Tensor done = ends | (truncated ? *truncated : none);
    if (!carry) {
      cut = done | ~ahead(valid) | ~valid;
      live = valid & ~ends;
      return;
    }
    const Tensor own_cut = at::cat({done.slice(0, 0, -1), at::ones_like(done.slice(0, -1))});
    const Tensor index = at::ones_like(valid, at::kLong).cumsum(0) - 1;
    const Tensor ends_here = at::where(own_cut | ahead(valid), index, std::numeric_limits<int64_t>::max());
    last = std::get<0>(ends_here.flip(0).cummin(0)).flip(0);
    passes_on = ~valid & ~own_cut;
    cut = own_cut.gather(0, last);
    live = valid & ~ends.gather(0, last);
  }
  // The V' that each step uses, and the transposed map.
  Tensor next(const Tensor& x) const { return last.defined() ? x.gather(0, last) : x; }
  Tensor next_transposed(const Tensor& grad) const {
    return last.defined() ? at::zeros_like(grad).scatter_add(0, last, grad) : grad;
  }
  // What follows each step: x of step t + 1, or of the step after the run.
  Tensor following(const Tensor& x) const { return next(ahead(x)); }
  // The factors of a scan: x, and 1 at the steps that pass on.
  Tensor decay(const Tensor& x) const {
    const Tensor kept = keep(valid & ~cut, x);
    return passes_on.defined() ? at::where(passes_on, at::ones_like(kept), kept) : kept;
  }
};

// a_t = grad_t + w_{t-1} a_{t-1}, differentiable. Computed as a lambda-return with lambda = 1 and reversed time.
Tensor scan_forward(const Tensor& grad, const Tensor& w) {
  const Tensor before = at::cat({at::zeros_like(w.slice(0, 0, 1)), w.slice(0, 0, -1)});
  return lambda_op()
      .call(grad.flip(0), at::zeros_like(grad), std::nullopt, std::nullopt, std::nullopt, before.flip(0), 1, 1, false)
      .flip(0);
}

// Saved: terminated, truncated, valid.
struct GaeGrad {
  static constexpr const char* kName = "GaeBackward";
  double gamma, lam;
  bool carry;

  variable_list fused(const Grads& g) const {
    static const auto op = autograd::find_op<GaeBackward>("automl_ext::_gae_backward");
    auto [r, v, next] = op.call(optional(g.out[0]), optional(g.out[1]), g.saved[0], g.saved[1], optional(g.saved[2]),
                                gamma, lam, carry);
    return {r, v, next};
  }
  variable_list composite(const Grads& g) const {
    const Tensor& any = g.out[0].defined() ? g.out[0] : g.out[1];
    const Masks masks(any, g.saved[0], g.saved[1], optional(g.saved[2]), carry);
    const auto grad = [&](const Tensor& x) {
      return x.defined() ? keep(masks.valid, wide(x)) : at::zeros_like(wide(any));
    };
    const Tensor grad_return = grad(g.out[1]);
    const Tensor decay = masks.decay(at::full_like(grad_return, gamma * lam));
    const Tensor a = keep(masks.valid, scan_forward(grad(g.out[0]) + grad_return, decay));
    return narrow({a, grad_return - a, masks.next_transposed(keep(masks.live, gamma * a))}, any.scalar_type());
  }
};

// Saved: terminated, truncated, valid, discounts; if discounts needs a gradient also next_values and the output.
struct LambdaGrad {
  static constexpr const char* kName = "LambdaReturnsBackward";
  double gamma, lam;
  bool carry;

  variable_list fused(const Grads& g) const {
    static const auto op = autograd::find_op<LambdaBackward>("automl_ext::_lambda_returns_backward");
    const auto& s = g.saved;
    const bool needs_discounts = s.size() > 4 && g.needs[2];
    if (needs_discounts && carry) return composite(g);
    auto [r, next, d] = op.call(g.out[0], optional(s[0]), optional(s[1]), optional(s[2]), optional(s[3]),
                                needs_discounts ? optional(s[4]) : std::nullopt,
                                needs_discounts ? optional(s[5]) : std::nullopt, gamma, lam, carry);
    return {r, next, needs_discounts ? d : Tensor()};
  }
  variable_list composite(const Grads& g) const {
    const auto& s = g.saved;
    const bool has_discounts = s[3].defined();
    const Masks masks(g.out[0], optional(s[0]), optional(s[1]), optional(s[2]), carry);
    const Tensor grad = keep(masks.valid, wide(g.out[0]));
    const Tensor discounts =
        has_discounts ? keep(masks.valid, wide(s[3])) : keep(masks.live, at::full_like(grad, gamma));
    const Tensor decay = masks.decay(lam * (has_discounts ? discounts : at::full_like(grad, gamma)));
    const Tensor a = keep(masks.valid, scan_forward(grad, decay)), discounted = discounts * a;
    const Tensor of_next = at::where(masks.cut, discounted, (1 - lam) * discounted);
    variable_list result{a, masks.next_transposed(of_next), Tensor()};
    if (s.size() > 4 && g.needs[2]) {
      const Tensor bootstraps = lam == 1 ? masks.valid & masks.cut : masks.valid;
      const Tensor next = keep(bootstraps, masks.next(wide(s[4])));
      result[2] = a * at::where(masks.cut, next, (1 - lam) * next + lam * masks.following(wide(s[5])));
    }
    return narrow(result, g.out[0].scalar_type());
  }
};

// n-step returns are linear, so the backward of the backward is the forward. Saved: terminated, truncated, valid.
struct NStepBackwardGrad {
  static constexpr const char* kName = "NStepReturnsBackwardBackward";
  double gamma;
  int64_t n;
  bool bootstraps, carry;

  variable_list both(const Grads& g) const {
    const Tensor rewards = g.out[0].defined() ? g.out[0] : at::zeros_like(g.out[1]);
    std::optional<Tensor> next;
    if (bootstraps) next = g.out[1].defined() ? g.out[1] : at::zeros_like(rewards);
    return {
        std::get<0>(n_step_op().call(rewards, next, g.saved[0], g.saved[1], optional(g.saved[2]), gamma, n, carry))};
  }
  variable_list fused(const Grads& g) const { return both(g); }
  variable_list composite(const Grads& g) const { return both(g); }
};

struct NStepGrad {
  static constexpr const char* kName = "NStepReturnsBackward";
  double gamma;
  int64_t n;
  bool bootstraps, carry;

  variable_list both(const Grads& g) const {
    auto [r, next] =
        n_step_backward_op().call(g.out[0], g.saved[0], g.saved[1], optional(g.saved[2]), gamma, n, bootstraps, carry);
    return {r, bootstraps ? next : Tensor()};
  }
  variable_list fused(const Grads& g) const { return both(g); }
  variable_list composite(const Grads& g) const { return both(g); }
};

Two gae(c10::DispatchKeySet keys, const Tensor& rewards, const Tensor& values, const Tensor& next_values,
        const Tensor& terminated, const Tensor& truncated, Optional valid, double gamma, double lam, bool carry) {
  static const auto op = autograd::find_op<Gae>("automl_ext::gae");
  const auto node = autograd::make_node("gae", GaeGrad{gamma, lam, carry}, rewards, values, next_values);
  auto result =
      autograd::redispatch(op, keys, rewards, values, next_values, terminated, truncated, valid, gamma, lam, carry);
  if (node) {
    torch::autograd::set_history(std::get<0>(result), node);
    torch::autograd::set_history(std::get<1>(result), node);
    node->save_input(terminated);
    node->save_input(truncated);
    node->save_input(defined(valid));
  }
  return result;
}

Tensor lambda_returns(c10::DispatchKeySet keys, const Tensor& rewards, const Tensor& next_values, Optional terminated,
                      Optional truncated, Optional valid, Optional discounts, double gamma, double lam, bool carry) {
  const auto node =
      autograd::make_node("lambda_returns", LambdaGrad{gamma, lam, carry}, rewards, next_values, discounts);
  Tensor result = autograd::redispatch(lambda_op(), keys, rewards, next_values, terminated, truncated, valid, discounts,
                                       gamma, lam, carry);
  if (node) {
    torch::autograd::set_history(result, node);
    node->save_input(defined(terminated));
    node->save_input(defined(truncated));
    node->save_input(defined(valid));
    node->save_input(defined(discounts));
    if (discounts && discounts->requires_grad()) {
      node->save_input(next_values);
      node->save_output(result);
    }
  }
  return result;
}

Three n_step_returns(c10::DispatchKeySet keys, const Tensor& rewards, Optional next_values, const Tensor& terminated,
                     const Tensor& truncated, Optional valid, double gamma, int64_t n, bool carry) {
  const NStepGrad grad{gamma, n, next_values.has_value(), carry};
  const auto node = autograd::make_node("n_step_returns", grad, rewards, next_values);
  auto result =
      autograd::redispatch(n_step_op(), keys, rewards, next_values, terminated, truncated, valid, gamma, n, carry);
  if (node) {
    torch::autograd::set_history(std::get<0>(result), node);
    node->save_input(terminated);
    node->save_input(truncated);
    node->save_input(defined(valid));
  }
  return result;
}

Two n_step_returns_backward(c10::DispatchKeySet keys, const Tensor& grad, const Tensor& terminated,
                            const Tensor& truncated, Optional valid, double gamma, int64_t n, bool bootstraps,
                            bool carry) {
  const auto node = autograd::make_node("n_step_returns", NStepBackwardGrad{gamma, n, bootstraps, carry}, grad);
  auto result =
      autograd::redispatch(n_step_backward_op(), keys, grad, terminated, truncated, valid, gamma, n, bootstraps, carry);
  if (node) {
    torch::autograd::set_history(std::get<0>(result), node);
    if (bootstraps) torch::autograd::set_history(std::get<1>(result), node);
    node->save_input(terminated);
    node->save_input(truncated);
    node->save_input(defined(valid));
  }
  return result;
}

}  // namespace automl_ext::returns_autograd

TORCH_LIBRARY_IMPL(automl_ext, Autograd, m) {
  m.impl("gae", TORCH_FN(automl_ext::returns_autograd::gae));
  m.impl("lambda_returns", TORCH_FN(automl_ext::returns_autograd::lambda_returns));
  m.impl("n_step_returns", TORCH_FN(automl_ext::returns_autograd::n_step_returns));
  m.impl("_n_step_returns_backward", TORCH_FN(automl_ext::returns_autograd::n_step_returns_backward));
  for (const char* target : {"vtrace", "retrace"}) m.impl(target, torch::CppFunction::makeFallthrough());
}
