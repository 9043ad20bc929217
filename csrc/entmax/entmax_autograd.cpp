// Gradients of entmax-1.5 and sparsemax: dx = s(g − ⟨s, g⟩/⟨s, 1⟩), s = √p and s = [p > 0].
#include "../common/autograd.h"
#include "entmax_gradient.h"

namespace automl_ext {
namespace {

using autograd::Grads;
using autograd::variable_list;

using Forward = at::Tensor(const at::Tensor&, int64_t);
using Backward = at::Tensor(const at::Tensor&, const at::Tensor&, int64_t);

struct Entmax15Grad {
  static constexpr const char* kName = "Entmax15Backward";
  int64_t dim;
  variable_list fused(const Grads& g) const {
    static const auto op = autograd::find_op<Backward>("automl_ext::_entmax15_backward");
    return {op.call(g.out[0], g.saved[0], dim)};
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
    return {op.call(g.out[0], g.saved[0], dim)};
  }
  variable_list composite(const Grads& g) const {
    const at::Tensor p = autograd::wide(g.saved[0].detach());
    const at::Tensor support = at::where(p == 0, at::zeros_like(p), p / p);  // NaN stays
    return autograd::narrow({centred(support, autograd::wide(g.out[0]), dim)}, g.saved[0].scalar_type());
  }
};

template <class Grad, class Handle>
at::Tensor forward(const char* name, const Handle& op, c10::DispatchKeySet keys, const at::Tensor& x, int64_t dim) {
  const auto node = autograd::make_node(name, Grad{dim}, x);
  at::Tensor p = autograd::redispatch(op, keys, x, dim);
  if (node) {
    torch::autograd::set_history(p, node);
    node->save_output(p);
  }
  return p;
}

at::Tensor entmax15(c10::DispatchKeySet keys, const at::Tensor& x, int64_t dim) {
  static const auto op = autograd::find_op<Forward>("automl_ext::entmax15");
  return forward<Entmax15Grad>("entmax15", op, keys, x, dim);
}
at::Tensor sparsemax(c10::DispatchKeySet keys, const at::Tensor& x, int64_t dim) {
  static const auto op = autograd::find_op<Forward>("automl_ext::sparsemax");
  return forward<SparsemaxGrad>("sparsemax", op, keys, x, dim);
}

}  // namespace
}  // namespace automl_ext

TORCH_LIBRARY_IMPL(automl_ext, Autograd, m) {
  m.impl("entmax15", TORCH_FN(automl_ext::entmax15));
  m.impl("sparsemax", TORCH_FN(automl_ext::sparsemax));
}
