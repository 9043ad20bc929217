// mlp and gru_cell by ATen ops: differentiable, and for every device and dtype.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "mlp.h"

namespace automl_ext {

// Whether the CPU kernels compute with tensors like x. Others use these functions.
inline bool has_kernel(const at::Tensor& x) {
  return x.device().is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble);
}

at::Tensor mlp_composite(const at::Tensor& x, at::TensorList weights, at::TensorList biases, int64_t activation,
                         bool activate_last, bool stacked_x);
at::Tensor gru_cell_composite(const at::Tensor& x, const at::Tensor& h, const at::Tensor& w_ih, const at::Tensor& w_hh,
                              const std::optional<at::Tensor>& b_ih, const std::optional<at::Tensor>& b_hh);

inline void check_device(const char* op, const char* name, const at::Tensor& x, const at::Tensor& like) {
  TORCH_CHECK_VALUE(x.device() == like.device(), op, ": ", name, ": expected a tensor on ", like.device(),
                    ", got one on ", x.device(), "; use .to('", like.device(), "')");
}

// The gradients of x (undefined unless needs_x), the weights and the biases, by differentiable ATen ops.
std::vector<at::Tensor> mlp_gradients(const at::Tensor& grad, const at::Tensor& x, at::TensorList weights,
                                      at::TensorList biases, int64_t activation, bool activate_last, bool stacked_x,
                                      bool needs_x);
// The gradients of x, h, the weights and, if given, the biases.
std::vector<at::Tensor> gru_cell_gradients(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& h,
                                           const at::Tensor& w_ih, const at::Tensor& w_hh,
                                           const std::optional<at::Tensor>& b_ih,
                                           const std::optional<at::Tensor>& b_hh);

}  // namespace automl_ext
