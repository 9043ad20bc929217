// Gradients of entmax-1.5 and sparsemax: dx = s(g − ⟨s, g⟩/⟨s, 1⟩), s = √p and s = [p > 0].
#include <optional>
#include <tuple>

#include "../common/autograd.h"
#include "entmax.h"
#include "entmax_gradient.h"

namespace automl_ext {
namespace {

using autograd::Grads;
using autograd::variable_list;

using Forward = at::Tensor(const at::Tensor&, int64_t);
using Trained = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, int64_t);
using Backward = at::Tensor(const at::Tensor&, const at::Tensor&, int64_t, const std::optional<at::Tensor>&);

std::optional<at::Tensor> support_of(const Grads& g) {
  return g.saved.size() > 1 ? std::optional<at::Tensor>(g.saved[1]) : std::nullopt;
}

struct Entmax15Grad {
  static constexpr const char* kName = "Entmax15Backward";
  int64_t dim;
  variable_list fused(const Grads& g) const {
    static const auto op = autograd::find_op<Backward>("automl_ext::_entmax15_backward");
    return {op.call(g.out[0], g.saved[0], dim, support_of(g))};
  }
  variable_list composite(const Grads& g) const {
    const at::Tensor p = autograd::wide(g.saved[0]);
    return autograd::narrow({centred(masked_sqrt(p), autograd::wide(g.out[0]), dim)}, g.saved[0].scalar_type());
  }
};

struct SparsemaxGrad {
  static constexpr const char* kName = "SparsemaxBackward";
  int64_t dim;
  variable_list fused(const Grads& g) const {
    static const auto op = autograd::find_op<Backward>("automl_ext::_sparsemax_backward");
    return {op.call(g.out[0], g.saved[0], dim, support_of(g))};
  }
  variable_list composite(const Grads& g) const {
    const at::Tensor p = autograd::wide(g.saved[0].detach());
    const at::Tensor support = at::where(p == 0, at::zeros_like(p), p / p);  // NaN stays
    return autograd::narrow({centred(support, autograd::wide(g.out[0]), dim)}, g.saved[0].scalar_type());
  }
};

using Pair = std::tuple<at::Tensor, at::Tensor>;

// On a GPU the gradient reads p.
bool has_support(const at::Tensor& x, int64_t dim) {
  return x.device().is_cpu() && x.dim() > 0 && x.sym_size(dim) > kLongestWithoutSupport;
}

// p and its support, saved by the node, if there is one.
template <class Node>
Pair trained(const Node& node, const c10::TypedOperatorHandle<Trained>& op, c10::DispatchKeySet keys, const at::Tensor& x,
             int64_t dim) {
  auto [p, support] = autograd::redispatch(op, keys, x, dim);
  if (node) {
    torch::autograd::set_history(p, node);
    node->save_output(p);
    node->save_input(support);
  }
  return {p, support};
}

template <class Node>
at::Tensor forward(const Node& node, const c10::TypedOperatorHandle<Forward>& op,
                   const c10::TypedOperatorHandle<Trained>& trained_op, c10::DispatchKeySet keys, const at::Tensor& x,
                   int64_t dim) {
  if (node && has_support(x, dim)) return std::get<0>(trained(node, trained_op, keys, x, dim));
  at::Tensor p = autograd::redispatch(op, keys, x, dim);
  if (node) {
    torch::autograd::set_history(p, node);
    node->save_output(p);
  }
  return p;
}

const auto& entmax15_trained_op() {
  static const auto op = autograd::find_op<Trained>("automl_ext::_entmax15_trained");
  return op;
}
const auto& sparsemax_trained_op() {
  static const auto op = autograd::find_op<Trained>("automl_ext::_sparsemax_trained");
  return op;
}

at::Tensor entmax15(c10::DispatchKeySet keys, const at::Tensor& x, int64_t dim) {
  static const auto op = autograd::find_op<Forward>("automl_ext::entmax15");
  return forward(autograd::make_node("entmax15", Entmax15Grad{dim}, x), op, entmax15_trained_op(), keys, x, dim);
}
at::Tensor sparsemax(c10::DispatchKeySet keys, const at::Tensor& x, int64_t dim) {
  static const auto op = autograd::find_op<Forward>("automl_ext::sparsemax");
  return forward(autograd::make_node("sparsemax", SparsemaxGrad{dim}, x), op, sparsemax_trained_op(), keys, x, dim);
}
// Gradients of gradients: to the outer torch.func.grad the inner one's call is the trained op.
Pair entmax15_trained(c10::DispatchKeySet keys, const at::Tensor& x, int64_t dim) {
  return trained(autograd::make_node("entmax15", Entmax15Grad{dim}, x), entmax15_trained_op(), keys, x, dim);
}
Pair sparsemax_trained(c10::DispatchKeySet keys, const at::Tensor& x, int64_t dim) {
  return trained(autograd::make_node("sparsemax", SparsemaxGrad{dim}, x), sparsemax_trained_op(), keys, x, dim);
}

}  // namespace
}  // namespace automl_ext

TORCH_LIBRARY_IMPL(automl_ext, Autograd, m) {
  m.impl("entmax15", TORCH_FN(automl_ext::entmax15));
  m.impl("_entmax15_trained", TORCH_FN(automl_ext::entmax15_trained));
  m.impl("sparsemax", TORCH_FN(automl_ext::sparsemax));
  m.impl("_sparsemax_trained", TORCH_FN(automl_ext::sparsemax_trained));
}
