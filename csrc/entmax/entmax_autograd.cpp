// Gradients of entmax-1.5 and sparsemax: dx = s(g − ⟨s, g⟩/⟨s, 1⟩) with s = √p and s = [p > 0], respectively.
#include <optional>
#include <tuple>

#include "../common/autograd.h"
#include "entmax.h"
#include "entmax_gradient.h"

namespace automl_ext::entmax_autograd {

using autograd::Grads;
using autograd::variable_list;

using Forward = at::Tensor(const at::Tensor&, int64_t);
using Trained = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, int64_t);
using Backward = at::Tensor(const at::Tensor&, const at::Tensor&, int64_t, const std::optional<at::Tensor>&);

// The saved tensors are p and, for long rows on the CPU, the support.
template <class Grad>
variable_list fused(const Grads& g, int64_t dim) {
  static const auto op = autograd::find_op<Backward>(Grad::kBackward);
  return {op.call(g.out[0], g.saved[0], dim, g.saved.size() > 1 ? std::optional(g.saved[1]) : std::nullopt)};
}

struct Entmax15Grad {
  static constexpr const char *kName = "Entmax15Backward", *kOp = "entmax15", *kForward = "automl_ext::entmax15";
  static constexpr const char *kTrained = "automl_ext::_entmax15_trained",
                              *kBackward = "automl_ext::_entmax15_backward";
  int64_t dim;
  variable_list fused(const Grads& g) const { return entmax_autograd::fused<Entmax15Grad>(g, dim); }
  variable_list composite(const Grads& g) const {
    const at::Tensor p = autograd::wide(g.saved[0]);
    return autograd::narrow({centered(masked_sqrt(p), autograd::wide(g.out[0]), dim)}, g.saved[0].scalar_type());
  }
};

struct SparsemaxGrad {
  static constexpr const char *kName = "SparsemaxBackward", *kOp = "sparsemax", *kForward = "automl_ext::sparsemax";
  static constexpr const char *kTrained = "automl_ext::_sparsemax_trained",
                              *kBackward = "automl_ext::_sparsemax_backward";
  int64_t dim;
  variable_list fused(const Grads& g) const { return entmax_autograd::fused<SparsemaxGrad>(g, dim); }
  variable_list composite(const Grads& g) const {
    const at::Tensor p = autograd::wide(g.saved[0].detach());
    const at::Tensor support = at::where(p == 0, at::zeros_like(p), p / p);  // NaN stays NaN
    return autograd::narrow({centered(support, autograd::wide(g.out[0]), dim)}, g.saved[0].scalar_type());
  }
};

// Returns true if the forward pass should return the support. On a GPU, and for a traced length that is unknown, the
// gradient reads p instead.
bool has_support(const at::Tensor& x, int64_t dim) {
  return x.device().is_cpu() && x.dim() > 0 && TORCH_GUARD_OR_FALSE(x.sym_size(dim).sym_gt(kLongestWithoutSupport));
}

// Differentiable too: if calls of torch.func.grad are nested, the outer one differentiates this function.
template <class Grad>
std::tuple<at::Tensor, at::Tensor> trained(c10::DispatchKeySet keys, const at::Tensor& x, int64_t dim) {
  static const auto op = autograd::find_op<Trained>(Grad::kTrained);
  const auto node = autograd::make_node(Grad::kOp, Grad{dim}, x);
  auto [p, support] = autograd::redispatch(op, keys, x, dim);
  if (node) {
    torch::autograd::set_history(p, node);
    node->save_output(p);
    node->save_input(support);
  }
  return {p, support};
}

template <class Grad>
at::Tensor forward(c10::DispatchKeySet keys, const at::Tensor& x, int64_t dim) {
  static const auto op = autograd::find_op<Forward>(Grad::kForward);
  if (torch::autograd::compute_requires_grad(x) && has_support(x, dim)) return std::get<0>(trained<Grad>(keys, x, dim));
  const auto node = autograd::make_node(Grad::kOp, Grad{dim}, x);
  at::Tensor p = autograd::redispatch(op, keys, x, dim);
  if (node) {
    torch::autograd::set_history(p, node);
    node->save_output(p);
  }
  return p;
}

}  // namespace automl_ext::entmax_autograd

TORCH_LIBRARY_IMPL(automl_ext, Autograd, m) {
  using namespace automl_ext::entmax_autograd;
  m.impl("entmax15", TORCH_FN(forward<Entmax15Grad>));
  m.impl("_entmax15_trained", TORCH_FN(trained<Entmax15Grad>));
  m.impl("sparsemax", TORCH_FN(forward<SparsemaxGrad>));
  m.impl("_sparsemax_trained", TORCH_FN(trained<SparsemaxGrad>));
}
