// Multilayer perceptrons and GRU cells by ATen ops: other dtypes and devices than those of the CPU kernels, autocast, and
// gradients that must be differentiable. Shapes may be symbolic.
#include <ATen/TensorOperators.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/elu.h>
#include <ATen/ops/erf.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gru_cell.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "mlp.h"
#include "mlp_composite.h"

namespace automl_ext {
namespace {

void check_float(const char* op, const at::Tensor& x) {
  TORCH_CHECK_TYPE(at::isFloatingType(x.scalar_type()), op, ": x: expected a float tensor, got ", x.scalar_type());
}

at::Tensor activate(const at::Tensor& x, int64_t activation) {
  switch (activation) {
    case kTanh: return at::tanh(x);
    case kRelu: return at::relu(x);
    case kElu: return at::elu(x);
    case kGelu: return at::gelu(x);
    case kSilu: return at::silu(x);
  }
  TORCH_CHECK_VALUE(false, "mlp: activation: expected a code below ", int(kActivations), ", got ", activation);
}

// The derivative of the activation at x, by ops that have derivatives of all orders.
at::Tensor slope(const at::Tensor& x, const at::Tensor& y, int64_t activation) {
  switch (activation) {
    case kTanh: return 1 - y * y;
    case kRelu: return at::where(y <= 0, at::zeros_like(y), at::zeros_like(y) + 1);
    case kElu: return at::where(x > 0, at::zeros_like(x) + 1, at::exp(x.clamp_max(0)));
    case kGelu:
      return 0.5 * (1 + at::erf(x * 0.70710678118654752440)) + x * at::exp(-0.5 * x * x) * 0.39894228040143267794;
  }
  const at::Tensor s = at::sigmoid(x);
  return s * (1 + x * (1 - s));
}

c10::SymInt rows_of(const at::Tensor& x, int64_t first) {
  c10::SymInt rows = 1;
  for (int64_t i = first; i + 1 < x.dim(); ++i) rows = rows * x.sym_size(i);
  return rows;
}

// x as [N, inputs], or with a stack as [E, N, inputs] or, if the networks share it, [1, N, inputs].
at::Tensor as_matrix(const at::Tensor& x, bool stack, bool stacked_x) {
  const c10::SymInt inputs = x.sym_size(-1);
  if (stacked_x) return x.reshape_symint({x.sym_size(0), rows_of(x, 1), inputs});
  const at::Tensor flat = x.reshape_symint({rows_of(x, 0), inputs});
  return stack ? flat.unsqueeze(0) : flat;
}

// What ATen's ops would broadcast or take in another meaning; they check the rest themselves.
void check_networks(const at::Tensor& x, at::TensorList weights, at::TensorList biases, bool stacked_x) {
  const int64_t dims = weights[0].dim();
  TORCH_CHECK_VALUE(dims == 2 || dims == 3, "mlp: weights[0]: expected 2 or 3 dimensions, got ", dims);
  TORCH_CHECK_VALUE(!stacked_x || (dims == 3 && x.dim() >= 2 && x.sym_size(0) == weights[0].sym_size(0)),
                    "mlp: stacked_x: expected x of shape [E, ..., inputs] and weights [E, outputs, inputs]");
  for (size_t i = 0; i < biases.size(); ++i)
    TORCH_CHECK_VALUE(biases[i].sym_sizes() == weights[i].sym_sizes().slice(0, dims - 1), "mlp: biases[", i,
                      "]: expected the shape of weights[", i, "] without the last dimension, got ",
                      biases[i].sym_sizes());
}
void check_cell(const at::Tensor& x, const at::Tensor& h, const std::optional<at::Tensor>& b_ih,
                const std::optional<at::Tensor>& b_hh) {
  TORCH_CHECK_VALUE(b_ih.has_value() == b_hh.has_value(), "gru_cell: b_hh: expected both biases or neither, got one");
  TORCH_CHECK_VALUE(
      x.dim() && x.dim() == h.dim() && x.sym_sizes().slice(0, x.dim() - 1) == h.sym_sizes().slice(0, x.dim() - 1),
      "gru_cell: h: expected one state for each row of x, got ", h.sym_sizes(), " and ", x.sym_sizes());
  for (const auto* b : {&b_ih, &b_hh})
    TORCH_CHECK_VALUE(!*b || ((*b)->dim() == 1 && (*b)->sym_size(0) == 3 * h.sym_size(-1)),
                      "gru_cell: ", b == &b_ih ? "b_ih" : "b_hh", ": expected 3 n elements for states of n, got ",
                      (*b)->sym_sizes());
}

}  // namespace

at::Tensor mlp_composite(const at::Tensor& x, at::TensorList weights, at::TensorList biases, int64_t activation,
                         bool activate_last, bool stacked_x) {
  check_float("mlp", x);
  TORCH_CHECK_VALUE(!weights.empty() && (biases.empty() || biases.size() == weights.size()),
                    "mlp: weights: expected at least one layer and as many biases, or none, got ", weights.size(),
                    " and ", biases.size());
  check_networks(x, weights, biases, stacked_x);
  const bool stack = weights[0].dim() == 3;
  at::Tensor y = x;
  if (stack) y = as_matrix(x, true, stacked_x).expand_symint({weights[0].sym_size(0), -1, -1});
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!stack)
      y = at::linear(y, weights[i], biases.empty() ? std::optional<at::Tensor>() : biases[i]);
    else if (biases.empty())
      y = at::bmm(y, weights[i].mT());
    else
      y = at::baddbmm(biases[i].unsqueeze(1), y, weights[i].mT());
    if (activate_last || i + 1 < weights.size()) y = activate(y, activation);
  }
  if (!stack) return y;
  std::vector<c10::SymInt> sizes = {weights[0].sym_size(0)};
  for (int64_t i = stacked_x; i + 1 < x.dim(); ++i) sizes.push_back(x.sym_size(i));
  sizes.push_back(y.sym_size(-1));
  return y.reshape_symint(sizes);
}

// Written out: torch::autograd::grad of the function above does not work under torch.func (vmap of grad, jvp of grad).
std::vector<at::Tensor> mlp_gradients(const at::Tensor& grad, const at::Tensor& x, at::TensorList weights,
                                      at::TensorList biases, int64_t activation, bool activate_last, bool stacked_x,
                                      bool needs_x) {
  const bool stack = weights[0].dim() == 3;
  const int64_t layers = int64_t(weights.size());
  std::vector<at::Tensor> inputs = {as_matrix(x, stack, stacked_x)}, slopes(layers);
  for (int64_t i = 0; i < layers; ++i) {
    at::Tensor y = at::matmul(inputs[i], weights[i].mT());
    if (!biases.empty()) y = y + biases[i].unsqueeze(-2);
    if (activate_last || i + 1 < layers) {
      const at::Tensor activated = activate(y, activation);
      slopes[i] = slope(y, activated, activation);
      y = activated;
    }
    inputs.push_back(y);
  }
  std::vector<at::Tensor> result(1 + layers + int64_t(biases.size()));
  at::Tensor g = as_matrix(grad, stack, stack);
  for (int64_t i = layers - 1; i >= 0; --i) {
    if (slopes[i].defined()) g = g * slopes[i];
    result[1 + i] = at::matmul(g.mT(), inputs[i]);
    if (!biases.empty()) result[1 + layers + i] = g.sum(-2);
    if (i > 0 || needs_x) g = at::matmul(g, weights[i]);
  }
  if (needs_x) result[0] = (stack && !stacked_x ? g.sum(0) : g).reshape_symint(x.sym_sizes());
  return result;
}

at::Tensor gru_cell_composite(const at::Tensor& x, const at::Tensor& h, const at::Tensor& w_ih, const at::Tensor& w_hh,
                              const std::optional<at::Tensor>& b_ih, const std::optional<at::Tensor>& b_hh) {
  check_float("gru_cell", x);
  check_cell(x, h, b_ih, b_hh);
  if (x.dim() == 2) return at::gru_cell(x, h, w_ih, w_hh, b_ih, b_hh);
  return at::gru_cell(as_matrix(x, false, false), as_matrix(h, false, false), w_ih, w_hh, b_ih, b_hh)
      .reshape_symint(h.sym_sizes());
}

std::vector<at::Tensor> gru_cell_gradients(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& h,
                                           const at::Tensor& w_ih, const at::Tensor& w_hh,
                                           const std::optional<at::Tensor>& b_ih,
                                           const std::optional<at::Tensor>& b_hh) {
  const at::Tensor rows = as_matrix(x, false, false), state = as_matrix(h, false, false),
                   g = as_matrix(grad, false, false);
  const auto of_input = at::linear(rows, w_ih, b_ih).chunk(3, 1), of_state = at::linear(state, w_hh, b_hh).chunk(3, 1);
  const at::Tensor reset = at::sigmoid(of_input[0] + of_state[0]), update = at::sigmoid(of_input[1] + of_state[1]);
  const at::Tensor candidate = at::tanh(of_input[2] + reset * of_state[2]);
  const at::Tensor grad_candidate = g * (1 - update) * (1 - candidate * candidate);
  const at::Tensor grad_reset = grad_candidate * of_state[2] * reset * (1 - reset);
  const at::Tensor grad_update = g * (state - candidate) * update * (1 - update);
  const at::Tensor input_gates = at::cat({grad_reset, grad_update, grad_candidate}, 1);
  const at::Tensor state_gates = at::cat({grad_reset, grad_update, grad_candidate * reset}, 1);
  std::vector<at::Tensor> result = {at::matmul(input_gates, w_ih).reshape_symint(x.sym_sizes()),
                                    (at::matmul(state_gates, w_hh) + g * update).reshape_symint(h.sym_sizes()),
                                    at::matmul(input_gates.t(), rows), at::matmul(state_gates.t(), state)};
  if (b_ih) result.push_back(input_gates.sum(0)), result.push_back(state_gates.sum(0));
  return result;
}

}  // namespace automl_ext

// The CPU kernels call these for other dtypes if autograd has not come before them, as in inference mode.
TORCH_LIBRARY_IMPL(automl_ext, CompositeImplicitAutograd, m) {
  m.impl("_mlp_composite", TORCH_FN(automl_ext::mlp_composite));
  m.impl("_gru_cell_composite", TORCH_FN(automl_ext::gru_cell_composite));
}
TORCH_LIBRARY_IMPL(automl_ext, CompositeExplicitAutograd, m) {
  m.impl("mlp", TORCH_FN(automl_ext::mlp_composite));
  m.impl("gru_cell", TORCH_FN(automl_ext::gru_cell_composite));
}
// Each product is cast as torch.nn.functional.linear casts it.
TORCH_LIBRARY_IMPL(automl_ext, AutocastCPU, m) {
  m.impl("mlp", TORCH_FN(automl_ext::mlp_composite));
  m.impl("gru_cell", TORCH_FN(automl_ext::gru_cell_composite));
}
TORCH_LIBRARY_IMPL(automl_ext, AutocastCUDA, m) {
  m.impl("mlp", TORCH_FN(automl_ext::mlp_composite));
  m.impl("gru_cell", TORCH_FN(automl_ext::gru_cell_composite));
}
