// Gradients of the GRU cell. Without a CPU kernel, a call is at::gru_cell, with gradients of its own.
#include <algorithm>
#include <tuple>

#include "../common/autograd.h"
#include "mlp_composite.h"

namespace automl_ext::gru_autograd {

using autograd::Grads;
using autograd::variable_list;
using Bias = std::optional<at::Tensor>;
using Forward = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, const Bias&,
                           const Bias&);
using Trained = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                   const at::Tensor&, const Bias&, const Bias&);
using Backward = std::vector<at::Tensor>(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                         const at::Tensor&, const at::Tensor&, bool, bool, bool);

// Inputs of the node: x, h, w_ih, w_hh, b_ih, b_hh. Saved: x, h, w_ih, w_hh, what the forward pass kept, and the biases if
// given.
struct GruCellGrad {
  static constexpr const char* kName = "GruCellBackward";

  variable_list fused(const Grads& g) const {
    static const auto op = autograd::find_op<Backward>("automl_ext::_gru_cell_backward");
    const bool needs_inputs = g.needs[0] || g.needs[1], has_biases = g.saved.size() > 5;
    const bool needs_parameters = std::find(g.needs.begin() + 2, g.needs.end(), true) != g.needs.end();
    auto grads = op.call(g.out[0], g.saved[0], g.saved[1], g.saved[2], g.saved[3], g.saved[4], has_biases, needs_inputs,
                         needs_parameters);
    if (!needs_inputs) grads.insert(grads.begin(), 2, at::Tensor());
    return needed(std::move(grads), g);
  }

  variable_list composite(const Grads& g) const {
    const bool biases = g.saved.size() > 5;
    return needed(gru_cell_gradients(g.out[0], g.saved[0], g.saved[1], g.saved[2], g.saved[3],
                                     biases ? Bias(g.saved[5]) : Bias(), biases ? Bias(g.saved[6]) : Bias()),
                  g);
  }

 private:
  static variable_list needed(variable_list grads, const Grads& g) {
    grads.resize(6);
    for (size_t i = 0; i < 6; ++i)
      if (!g.needs[i]) grads[i].reset();
    return grads;
  }
};

// Differentiable too: if calls of torch.func.grad are nested, the outer one differentiates this function.
std::tuple<at::Tensor, at::Tensor> trained(c10::DispatchKeySet keys, const at::Tensor& x, const at::Tensor& h,
                                           const at::Tensor& w_ih, const at::Tensor& w_hh, const Bias& b_ih,
                                           const Bias& b_hh) {
  static const auto op = autograd::find_op<Trained>("automl_ext::_gru_cell_trained");
  const at::Tensor bias_i = b_ih.value_or(at::Tensor()), bias_h = b_hh.value_or(at::Tensor());
  const auto node = autograd::make_node("gru_cell", GruCellGrad{}, x, h, w_ih, w_hh, bias_i, bias_h);
  auto [next, kept] = autograd::redispatch(op, keys, x, h, w_ih, w_hh, b_ih, b_hh);
  if (node) {
    torch::autograd::set_history(next, node);
    for (const auto* y : {&x, &h, &w_ih, &w_hh}) node->save_input(*y);
    node->save_input(kept);
    if (b_ih && b_hh) node->save_input(*b_ih), node->save_input(*b_hh);
  }
  return {next, kept};
}

at::Tensor gru_cell(c10::DispatchKeySet keys, const at::Tensor& x, const at::Tensor& h, const at::Tensor& w_ih,
                    const at::Tensor& w_hh, const Bias& b_ih, const Bias& b_hh) {
  static const auto op = autograd::find_op<Forward>("automl_ext::gru_cell");
  const at::Tensor bias_i = b_ih.value_or(at::Tensor()), bias_h = b_hh.value_or(at::Tensor());
  for (const auto* y : {&h, &w_ih, &w_hh, &bias_i, &bias_h})
    if (y->defined()) check_device("gru_cell", "h, w_ih, w_hh, b_ih, b_hh", *y, x);
  if (!has_kernel(x)) return gru_cell_composite(x, h, w_ih, w_hh, b_ih, b_hh);
  if (torch::autograd::compute_requires_grad(x, h, w_ih, w_hh, bias_i, bias_h))
    return std::get<0>(trained(keys, x, h, w_ih, w_hh, b_ih, b_hh));
  for (const auto* y : {&x, &h, &w_ih, &w_hh, &bias_i, &bias_h}) autograd::check_no_forward_ad("gru_cell", *y);
  return autograd::redispatch(op, keys, x, h, w_ih, w_hh, b_ih, b_hh);
}

}  // namespace automl_ext::gru_autograd

TORCH_LIBRARY_IMPL(automl_ext, Autograd, m) {
  m.impl("gru_cell", TORCH_FN(automl_ext::gru_autograd::gru_cell));
  m.impl("_gru_cell_trained", TORCH_FN(automl_ext::gru_autograd::trained));
}
