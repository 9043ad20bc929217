// Gradients of alpha-entmax, normmax and budget-sparsemax in the scores and in alpha or budget; formulas: bisect_backward.inc.
// The composite is written in terms of the output p, whose graph gives the derivatives of all orders.
#include <cmath>
#include <optional>
#include <tuple>

#include "../common/autograd.h"
#include "../entmax/entmax_gradient.h"
#include "bisect.h"

namespace automl_ext::bisect_autograd {

using autograd::Grads;
using autograd::variable_list;
using Parameter = const std::optional<at::Tensor>&;
using Forward = at::Tensor(const at::Tensor&, double, Parameter, int64_t, int64_t);
using Backward = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, double, Parameter, int64_t,
                                                    int64_t, bool);

// φ of bisect_backward.inc, with exact derivatives.
at::Tensor phi(const at::Tensor& z) {
  const at::Tensor small = z.abs() < 1, one = at::ones_like(z);
  const at::Tensor near = at::where(small, z, at::zeros_like(z)), far = at::where(small, one, z), e = far.exp();
  at::Tensor series = at::zeros_like(z);
  for (int k = 20; k >= 0; --k) series = series * near + 1 / (std::tgamma(k + 1.0) * (k + 2));
  return at::where(small, series, (far * e - e + 1) / (far * far));
}

struct BisectGrad {
  static constexpr const char* kName = "BisectMapBackward";
  double value;
  int64_t map, dim;

  std::optional<at::Tensor> parameter(const Grads& g) const {
    return g.saved.size() > 1 ? std::optional(g.saved[1]) : std::nullopt;
  }
  variable_list fused(const Grads& g) const {
    static const auto op = autograd::find_op<Backward>("automl_ext::_bisect_map_backward");
    auto [dx, of_parameter] = op.call(g.out[0], g.saved[0], value, parameter(g), map, dim, g.needs[1]);
    return {dx, g.needs[1] ? of_parameter : at::Tensor()};
  }
  variable_list composite(const Grads& g) const {
    const at::Tensor &p = g.saved[0], &grad = g.out[0], zero = at::zeros_like(p), one = at::ones_like(p);
    const auto given = parameter(g);
    const at::Tensor alpha = given ? *given : at::full({}, value, p.options()), a = alpha - 1;
    const auto sum = [&](const at::Tensor& x) { return x.sum(dim, true); };
    if (map == kBudget) {
      const at::Tensor free = at::where(p == p, ((p > 0) & (p < 1)).to(p.scalar_type()), p.detach());
      const at::Tensor count = sum(free), some = at::where(count == 0, at::ones_like(count), count);
      return {centered(free, grad, dim),
              g.needs[1] ? sum(at::where(free == 0, zero, free * grad)) / some : at::Tensor()};
    }
    const at::Tensor off = p == 0, l = at::where(off, one, p).log();
    if (map != kNormmax) {
      const at::Tensor dx = centered(at::where(off, zero, ((1 - a) * l).exp()), grad, dim);
      return {dx, g.needs[1] ? -sum(dx * l * l * phi(a * l)) : at::Tensor()};
    }
    const at::Tensor total = sum(p);
    // The result does not depend on the scale `top`, so it is a constant.
    const at::Tensor top = at::where(total == 0, at::ones_like(total), p.detach().amax(dim, true)), log_top = top.log();
    const at::Tensor r = at::where(off, zero, l - log_top);
    const at::Tensor power = at::where(off, zero, (alpha * r).exp());
    const at::Tensor powers = sum(power), some = at::where(powers == 0, at::ones_like(powers), powers);
    const at::Tensor q = at::where(off, zero, grad), centered_q = q - sum(p * q);
    const at::Tensor log_sum = some.log();
    const at::Tensor v =
        at::where(off, zero, ((1 - a) * r).exp() * centered_q) * (top * (log_sum * (a / alpha)).exp() / a);
    const at::Tensor of_x = v - p * sum(v);
    if (!g.needs[1]) return {of_x, at::Tensor()};
    const at::Tensor entropy = sum(power * r) / some - log_sum / alpha, norm = (log_top + log_sum / alpha).exp();
    return {of_x, sum(v) * entropy * norm / alpha - sum(p * centered_q * l) / a};
  }
};

at::Tensor forward(c10::DispatchKeySet keys, const at::Tensor& x, double value, Parameter parameter, int64_t map,
                   int64_t dim) {
  static const auto op = autograd::find_op<Forward>("automl_ext::bisect_map");
  const auto node = autograd::make_node("bisect_map", BisectGrad{value, map, dim}, x, parameter);
  // Half-precision outputs are not exact enough for a gradient: p^(2 − α) is steep at 0 for large α.
  if (node && autograd::wide(x).scalar_type() != x.scalar_type())
    return op.call(autograd::wide(x), value, parameter, map, dim).to(x.scalar_type());
  at::Tensor p = autograd::redispatch(op, keys, x, value, parameter, map, dim);
  if (node) {
    torch::autograd::set_history(p, node);
    node->save_output(p);
    if (parameter) node->save_input(*parameter);
  }
  return p;
}

}  // namespace automl_ext::bisect_autograd

TORCH_LIBRARY_IMPL(automl_ext, Autograd, m) { m.impl("bisect_map", TORCH_FN(automl_ext::bisect_autograd::forward)); }
