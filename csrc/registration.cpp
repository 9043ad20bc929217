// The schemas of all ops. Kernels: <family>/<family>_cpu.cpp; gradients: <family>_autograd.cpp; fake tensors, vmap and
// autocast: automl_ext/ops/_register.py. Ops with a leading underscore implement gradients, or are parts of an op.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(automl_ext, m) {
  // x has any shape; the result has probabilities along dim, in the shape of x.
  m.def("entmax15(Tensor x, int dim) -> Tensor");
  // Called if a gradient is needed. support: the non-zero entries of the rows of p, as bytes for _backward only; [0] for short
  // rows and on a GPU.
  m.def("_entmax15_trained(Tensor x, int dim) -> (Tensor p, Tensor support)");
  m.def("_entmax15_backward(Tensor grad, Tensor p, int dim, Tensor? support=None) -> Tensor");
  m.def("sparsemax(Tensor x, int dim) -> Tensor");
  m.def("_sparsemax_trained(Tensor x, int dim) -> (Tensor p, Tensor support)");
  m.def("_sparsemax_backward(Tensor grad, Tensor p, int dim, Tensor? support=None) -> Tensor");
  // Alpha-entmax, normmax and budget-sparsemax; map: see csrc/bisect/bisect.h. parameter: alpha or budget, in the shape of x
  // with size 1 at dim, float64 for a float64 x, else float32; without it, value. Returns p in the shape of x.
  m.def("bisect_map(Tensor x, float value, Tensor? parameter, int map, int dim) -> Tensor");
  // The gradient of the parameter is [0] unless needed.
  m.def(
      "_bisect_map_backward(Tensor grad, Tensor p, float value, Tensor? parameter, int map, int dim, "
      "bool needs_parameter) -> (Tensor x, Tensor parameter)");

  // logits has any shape. seed (int64) and tau_tensor (float) have shape [], or under vmap a prefix of the shape of logits
  // with dim moved last; each seed has its own stream. tau_tensor replaces tau if given. y has the shape of logits. soft, the
  // sample before hardening, is [0] unless hard. index, without dim, is [0] unless hard or return_index.
  m.def(
      "gumbel_softmax(Tensor logits, Tensor seed, float tau, Tensor? tau_tensor, int dim, bool hard, "
      "bool return_index) -> (Tensor y, Tensor soft, Tensor index)");
  // The gradient of tau is [0] unless there is a tau_tensor and tau_needs.
  m.def(
      "_gumbel_softmax_backward(Tensor grad, Tensor soft, float tau, Tensor? tau_tensor, int dim, bool tau_needs) "
      "-> (Tensor logits, Tensor tau)");
  m.def(
      "gumbel_entmax15(Tensor logits, Tensor seed, float tau, Tensor? tau_tensor, int dim, bool hard, "
      "bool return_index) -> (Tensor y, Tensor soft, Tensor index)");
  m.def(
      "_gumbel_entmax15_backward(Tensor grad, Tensor soft, float tau, Tensor? tau_tensor, int dim, bool tau_needs) "
      "-> (Tensor logits, Tensor tau)");
  // The result is int64, in the shape of logits without dim.
  m.def("gumbel_argmax(Tensor logits, Tensor seed, int dim) -> Tensor");

  // inputs: n tensors of one shape; weights [K]; positions[i] is the index of the weight of inputs[i].
  m.def("mixed_op(Tensor[] inputs, Tensor weights, int[] positions) -> Tensor");
  // grad has the shape of an input. inputs is empty unless the weights need a gradient. input_needs: one flag per input.
  // Returns the gradients of the inputs that need one, in order, and that of the weights ([0] if not needed).
  m.def(
      "_mixed_op_backward(Tensor grad, Tensor[] inputs, Tensor weights, int[] positions, bool[] input_needs) "
      "-> (Tensor[], Tensor)");

  // x is [..., inputs], or [E, ..., inputs] with stacked_x; weights are [outputs, inputs] or [E, outputs, inputs]; biases are
  // [outputs] or [E, outputs], as many as weights or none. activation: see csrc/mlp/mlp.h.
  m.def(
      "mlp(Tensor x, Tensor[] weights, Tensor[] biases, int activation, bool activate_last, bool stacked_x) -> Tensor");
  // By torch's own ops, for other dtypes than those of the kernels.
  m.def(
      "_mlp_composite(Tensor x, Tensor[] weights, Tensor[] biases, int activation, bool activate_last, bool stacked_x) "
      "-> Tensor");
  // Called if a gradient is needed. kept: outputs and slopes of the layers, for _backward only.
  m.def(
      "_mlp_trained(Tensor x, Tensor[] weights, Tensor[] biases, int activation, bool activate_last, bool stacked_x) "
      "-> (Tensor y, Tensor kept)");
  // y is read if activate_last, unless the activation keeps its slope. Returns the gradients of x, the weights and the
  // biases, without those that are not needed.
  m.def(
      "_mlp_backward(Tensor grad, Tensor x, Tensor[] weights, Tensor kept, Tensor? y, int activation, bool "
      "activate_last, "
      "bool stacked_x, bool has_biases, bool needs_x, bool needs_parameters) -> Tensor[]");
  // x [..., inputs], h [..., n], w_ih [3 n, inputs], w_hh [3 n, n], b_ih and b_hh [3 n].
  m.def("gru_cell(Tensor x, Tensor h, Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh) -> Tensor");
  m.def("_gru_cell_composite(Tensor x, Tensor h, Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh) -> Tensor");
  m.def(
      "_gru_cell_trained(Tensor x, Tensor h, Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh) "
      "-> (Tensor next, Tensor kept)");
  // Returns the gradients of x and h, if needed, and of the weights and biases, if needed.
  m.def(
      "_gru_cell_backward(Tensor grad, Tensor x, Tensor h, Tensor w_ih, Tensor w_hh, Tensor kept, bool has_biases, "
      "bool needs_inputs, bool needs_parameters) -> Tensor[]");

  // All tensors are [T, ...], of one shape, time first; flags are bool. Backward ops return the gradients of the float inputs
  // in their order; [0] where there is none.
  m.def(
      "gae(Tensor rewards, Tensor values, Tensor next_values, Tensor terminated, Tensor truncated, Tensor? valid, "
      "float gamma, float lam) -> (Tensor advantages, Tensor returns)");
  m.def(
      "_gae_backward(Tensor? grad_advantages, Tensor? grad_returns, Tensor terminated, Tensor truncated, "
      "Tensor? valid, float gamma, float lam) -> (Tensor, Tensor, Tensor)");
  m.def(
      "lambda_returns(Tensor rewards, Tensor next_values, Tensor? terminated, Tensor? truncated, Tensor? valid, "
      "Tensor? discounts, float gamma, float lam) -> Tensor");
  // next_values and returns are given only if discounts needs a gradient.
  m.def(
      "_lambda_returns_backward(Tensor grad, Tensor? terminated, Tensor? truncated, Tensor? valid, "
      "Tensor? discounts, Tensor? next_values, Tensor? returns, float gamma, float lam) -> (Tensor, Tensor, Tensor)");
  m.def(
      "n_step_returns(Tensor rewards, Tensor? next_values, Tensor terminated, Tensor truncated, Tensor? valid, "
      "float gamma, int n) -> (Tensor returns, Tensor discounts, Tensor last)");
  m.def(
      "_n_step_returns_backward(Tensor grad, Tensor terminated, Tensor truncated, Tensor? valid, float gamma, int n, "
      "bool bootstraps) -> (Tensor, Tensor)");
  // Targets have no gradients.
  m.def(
      "vtrace(Tensor log_rhos, Tensor rewards, Tensor values, Tensor next_values, Tensor terminated, "
      "Tensor truncated, Tensor? valid, float gamma, float lam, float rho_clip, float c_clip) "
      "-> (Tensor vs, Tensor advantages)");
  m.def(
      "retrace(Tensor log_rhos, Tensor q_values, Tensor rewards, Tensor next_values, Tensor terminated, "
      "Tensor truncated, Tensor? valid, float gamma, float lam) -> Tensor");
  // next_q and next_q_online are [..., actions], the others [...]. gamma is used without discounts.
  m.def(
      "td_targets(Tensor rewards, Tensor next_q, Tensor terminated, Tensor? discounts, Tensor? next_q_online, "
      "float gamma) -> Tensor");
  // next_probs is [..., atoms], the others [...]. gamma is used without discounts.
  m.def(
      "categorical_projection(Tensor next_probs, Tensor rewards, Tensor terminated, Tensor? discounts, float gamma, "
      "float v_min, float v_max) -> Tensor");

  // logits [..., n], actions int64 [...]; the results have the shape of actions.
  m.def("categorical_log_probs(Tensor logits, Tensor actions) -> (Tensor log_probs, Tensor entropy)");
  m.def(
      "_categorical_log_probs_backward(Tensor? grad_log_probs, Tensor? grad_entropy, Tensor logits, Tensor actions) "
      "-> Tensor");
  // All tensors have one shape. Only log_probs, entropy and values have gradients, and only of the first result. The results
  // have no dims.
  m.def(
      "policy_gradient_loss(Tensor log_probs, Tensor entropy, Tensor values, Tensor advantages, Tensor returns, "
      "Tensor? old_log_probs, Tensor? old_values, Tensor? weights, float clip, float value_clip, float vf_coef, "
      "float ent_coef) -> (Tensor loss, Tensor policy_loss, Tensor value_loss, Tensor mean_entropy)");
  // Called if a gradient is needed. of_log_probs and of_values: the gradients of the loss.
  m.def(
      "_policy_gradient_loss_trained(Tensor log_probs, Tensor entropy, Tensor values, Tensor advantages, "
      "Tensor returns, Tensor? old_log_probs, Tensor? old_values, Tensor? weights, float clip, float value_clip, "
      "float vf_coef, float ent_coef) -> (Tensor loss, Tensor policy_loss, Tensor value_loss, Tensor mean_entropy, "
      "Tensor of_log_probs, Tensor of_values)");

  // Of the replay buffer: csrc/replay/replay_cpu.cpp.
  m.def(
      "_gather_windows(Tensor rows, Tensor steps, int slots, int n_step, float gamma, Tensor observations, "
      "Tensor actions, Tensor apart) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}
