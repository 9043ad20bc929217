// Gradients of Gumbel-softmax and Gumbel-entmax with respect to the logits and τ. A hard sample passes its gradient to the
// soft one (straight-through), so the gradients of both outputs are added.
#include <algorithm>
#include <limits>

#include "../common/autograd.h"
#include "../entmax/entmax_gradient.h"

namespace automl_ext::gumbel_autograd {

using autograd::Grads;
using autograd::variable_list;
using Tau = const std::optional<at::Tensor>&;
using Sampled = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Forward = Sampled(const at::Tensor&, const at::Tensor&, double, Tau, int64_t, bool, bool);
using Backward = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, double, Tau, int64_t, bool);

constexpr size_t kLogits = 0, kTau = 1;

at::Tensor total_grad(const Grads& g) {
  if (!g.out[0].defined()) return g.out[1];
  return g.out.size() > 1 && g.out[1].defined() ? g.out[0] + g.out[1] : g.out[0];
}

std::optional<at::Tensor> saved_tau(const Grads& g) {
  return g.saved.size() > 1 ? std::optional<at::Tensor>(g.saved[1]) : std::nullopt;
}

// τ, broadcast against y; under vmap there is one τ per leading index of y with dim moved last.
at::Tensor tau_beside(const at::Tensor& tau, const at::Tensor& y, int64_t dim) {
  if (tau.dim() == 0) return tau;
  std::vector<int64_t> shape(tau.sizes().begin(), tau.sizes().end());
  shape.resize(y.dim(), 1);
  return tau.reshape(shape).movedim(-1, dim);
}

// Sums a tensor in the shape of y to the shape of τ.
at::Tensor sum_to_tau(at::Tensor x, const at::Tensor& tau, int64_t dim) {
  if (tau.dim() == 0) return x.sum().to(tau.scalar_type());
  x = x.movedim(dim, -1);
  std::vector<int64_t> dims;
  for (int64_t i = tau.dim(); i < x.dim(); ++i) dims.push_back(i);
  return x.sum(dims).to(tau.scalar_type());
}

// The gradients of the logits, dz/τ, and of τ, −Σ tau_terms/τ.
variable_list gradients(const Grads& g, const at::Tensor& dz, const at::Tensor& tau_terms, double tau, int64_t dim) {
  const auto tau_tensor = saved_tau(g);
  const auto dtype = g.saved[0].scalar_type();
  // A smaller τ counts as the smallest normal number, as in the kernels: 0/0 would be NaN.
  const double least =
      dz.scalar_type() == at::kDouble ? std::numeric_limits<double>::min() : double(std::numeric_limits<float>::min());
  if (!tau_tensor) return {(dz / std::max(tau, least)).to(dtype), at::Tensor()};
  const at::Tensor t = tau_beside(*tau_tensor, dz, dim).to(dz.scalar_type()).clamp_min(least);
  return {g.needs[kLogits] ? (dz / t).to(dtype) : at::Tensor(),
          g.needs[kTau] ? sum_to_tau(-tau_terms / t, *tau_tensor, dim) : at::Tensor()};
}

template <class Handle>
variable_list fused_gradients(const Handle& op, const Grads& g, double tau, int64_t dim) {
  auto [dx, dtau] = op.call(total_grad(g), g.saved[0], tau, saved_tau(g), dim, g.needs[kTau]);
  return {dx, g.needs[kTau] ? dtau : at::Tensor()};
}

struct GumbelSoftmaxGrad {
  static constexpr const char* kName = "GumbelSoftmaxBackward";
  static constexpr const char* kOp = "automl_ext::gumbel_softmax";
  double tau;
  int64_t dim;
  variable_list fused(const Grads& g) const {
    static const auto op = autograd::find_op<Backward>("automl_ext::_gumbel_softmax_backward");
    return fused_gradients(op, g, tau, dim);
  }
  variable_list composite(const Grads& g) const {
    const at::Tensor y = autograd::wide(g.saved[0]), grad = autograd::wide(total_grad(g));
    const at::Tensor dz = y * (grad - (grad * y).sum(dim, true));
    // Where y = 0, dz is 0 too, and log y would make the derivative of the product NaN.
    const at::Tensor safe = at::where(y == 0, at::ones_like(y), y);
    return gradients(g, dz, dz * safe.log(), tau, dim);
  }
};

struct GumbelEntmax15Grad {
  static constexpr const char* kName = "GumbelEntmax15Backward";
  static constexpr const char* kOp = "automl_ext::gumbel_entmax15";
  double tau;
  int64_t dim;
  variable_list fused(const Grads& g) const {
    static const auto op = autograd::find_op<Backward>("automl_ext::_gumbel_entmax15_backward");
    return fused_gradients(op, g, tau, dim);
  }
  variable_list composite(const Grads& g) const {
    const at::Tensor s = masked_sqrt(autograd::wide(g.saved[0]));
    const at::Tensor dz = centered(s, autograd::wide(total_grad(g)), dim);
    return gradients(g, dz, 2 * dz * s, tau, dim);
  }
};

template <class Grad>
Sampled sample(c10::DispatchKeySet keys, const at::Tensor& logits, const at::Tensor& seed, double tau, Tau tau_tensor,
               int64_t dim, bool hard, bool return_index) {
  static const auto op = autograd::find_op<Forward>(Grad::kOp);
  const auto node = autograd::make_node("gumbel", Grad{tau, dim}, logits, tau_tensor);
  auto [y, soft, index] = autograd::redispatch(op, keys, logits, seed, tau, tau_tensor, dim, hard, return_index);
  if (node) {
    torch::autograd::set_history(y, node);
    if (hard) torch::autograd::set_history(soft, node);
    node->save_output(hard ? soft : y);
    if (tau_tensor) node->save_input(*tau_tensor);
  }
  return {y, soft, index};
}

}  // namespace automl_ext::gumbel_autograd

TORCH_LIBRARY_IMPL(automl_ext, Autograd, m) {
  using namespace automl_ext::gumbel_autograd;
  m.impl("gumbel_softmax", TORCH_FN(sample<GumbelSoftmaxGrad>));
  m.impl("gumbel_entmax15", TORCH_FN(sample<GumbelEntmax15Grad>));
}
