// The gradient of maps with sparse outputs, as differentiable ATen ops, for entmax and Gumbel-entmax.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

namespace automl_ext {

// √p with derivative 0, not infinite, at p = 0: p is masked before and after the root. NaN stays NaN.
inline at::Tensor masked_sqrt(const at::Tensor& p) {
  const at::Tensor off = p == 0;
  return at::where(off, at::zeros_like(p), at::where(off, at::ones_like(p), p).sqrt());
}

// s(g − ⟨s, g⟩/⟨s, 1⟩); zero outside the support for any g, and for a row without support.
inline at::Tensor centered(const at::Tensor& s, const at::Tensor& grad, int64_t dim) {
  const at::Tensor off = s == 0, g = at::where(off, at::zeros_like(grad), grad), total = s.sum(dim, true);
  const at::Tensor mean = (s * g).sum(dim, true) / at::where(total == 0, at::ones_like(total), total);
  return at::where(off, at::zeros_like(g), s * (g - mean));
}

}  // namespace automl_ext
