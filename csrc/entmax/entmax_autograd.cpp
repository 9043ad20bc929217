// Gradients of entmax-1.5 and sparsemax: dx = s(g − ⟨s, g⟩/⟨s, 1⟩), s = √p and s = [p > 0].
#include <ATen/TensorOperators.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "../common/autograd.h"

namespace automl_ext {
namespace {

using autograd::Grads;
using autograd::variable_list;

using Forward = at::Tensor(const at::Tensor&, int64_t);
using Backward = at::Tensor(const at::Tensor&, const at::Tensor&, int64_t);

// √p with derivative 0, not infinite, where p = 0: masked before the root and after. A NaN stays.
at::Tensor masked_sqrt(const at::Tensor& p) {
  const at::Tensor off = p == 0;
  return at::where(off, at::zeros_like(p), at::where(off, at::ones_like(p), p).sqrt());
}

at::Tensor centred(const at::Tensor& s, const at::Tensor& grad, int64_t dim) {
  const at::Tensor total = s.sum(dim, true);
  const at::Tensor mean = (s * grad).sum(dim, true) / at::where(total == 0, at::ones_like(total), total);
  return s * (grad - mean);
}

struct Entmax15Grad {
  static constexpr const char* kName = "Entmax15Backward";
  int64_t dim;
  variable_list fused(const Grads& g) const {
    static const auto op = autograd::find_op<Backward>("automl_ext::_entmax15_backward");
    return {op.call(g.out[0], g.saved[0], dim)};
  }
  variable_list composite(const Grads& g) const { return {centred(masked_sqrt(g.saved[0]), g.out[0], dim)}; }
};

struct SparsemaxGrad {
  static constexpr const char* kName = "SparsemaxBackward";
  int64_t dim;
  variable_list fused(const Grads& g) const {
    static const auto op = autograd::find_op<Backward>("automl_ext::_sparsemax_backward");
    return {op.call(g.out[0], g.saved[0], dim)};
  }
  variable_list composite(const Grads& g) const {
    const at::Tensor& p = g.saved[0];
    const at::Tensor support = at::where(p == 0, at::zeros_like(p), p / p.detach());  // NaN stays
    return {centred(support.detach(), g.out[0], dim)};
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
