// Registers the CPU kernels of the returns: lambda_returns, gae, n_step_returns, vtrace and retrace.
#include <algorithm>

#include "returns_entry.h"

namespace automl_ext::returns_cpu {
namespace {

struct Cpu {
  static constexpr bool kDirect = true;
  static const ReturnsKernels& kernels() { return returns_kernels(); }

  // Threads take blocks of columns, a whole number of vectors each. Columns are independent, so results do not depend
  // on the number of threads.
  static void run(const char*, const Tensor&, const ReturnsKernels::Columns* table, DType dtype, const Trajectory& x) {
    constexpr int64_t kBlock = 64;
    const auto kernel = table[dtype];
    parallel_rows((x.columns + kBlock - 1) / kBlock, x.steps * kBlock,
                  [&](int64_t begin, int64_t end) { kernel(x, begin * kBlock, std::min(end * kBlock, x.columns)); });
  }
};

}  // namespace
}  // namespace automl_ext::returns_cpu

STABLE_TORCH_LIBRARY_FRAGMENT(automl_ext, m) {
  // All tensors are [T, ...], of one shape, time first; flags are bool. Backward ops return the gradients of the float inputs
  // in their order; [0] where there is none. carry: invalid steps pass on what follows them, instead of a cut.
  m.def(
      "gae(Tensor rewards, Tensor values, Tensor next_values, Tensor terminated, Tensor truncated, Tensor? valid, "
      "float gamma, float lam, bool carry=False) -> (Tensor advantages, Tensor returns)");
  m.def(
      "_gae_backward(Tensor? grad_advantages, Tensor? grad_returns, Tensor terminated, Tensor truncated, "
      "Tensor? valid, float gamma, float lam, bool carry=False) -> (Tensor, Tensor, Tensor)");
  m.def(
      "lambda_returns(Tensor rewards, Tensor next_values, Tensor? terminated, Tensor? truncated, Tensor? valid, "
      "Tensor? discounts, float gamma, float lam, bool carry=False) -> Tensor");
  // next_values and returns are given only if discounts needs a gradient; they cannot be with carry.
  m.def(
      "_lambda_returns_backward(Tensor grad, Tensor? terminated, Tensor? truncated, Tensor? valid, "
      "Tensor? discounts, Tensor? next_values, Tensor? returns, float gamma, float lam, bool carry=False) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "n_step_returns(Tensor rewards, Tensor? next_values, Tensor terminated, Tensor truncated, Tensor? valid, "
      "float gamma, int n, bool carry=False) -> (Tensor returns, Tensor discounts, Tensor last)");
  m.def(
      "_n_step_returns_backward(Tensor grad, Tensor terminated, Tensor truncated, Tensor? valid, float gamma, int n, "
      "bool bootstraps, bool carry=False) -> (Tensor, Tensor)");
  // Targets have no gradients.
  m.def(
      "vtrace(Tensor log_rhos, Tensor rewards, Tensor values, Tensor next_values, Tensor terminated, "
      "Tensor truncated, Tensor? valid, float gamma, float lam, float rho_clip, float c_clip) "
      "-> (Tensor vs, Tensor advantages)");
  m.def(
      "retrace(Tensor log_rhos, Tensor q_values, Tensor rewards, Tensor next_values, Tensor terminated, "
      "Tensor truncated, Tensor? valid, float gamma, float lam) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  automl_ext::returns_entry::register_ops<automl_ext::returns_cpu::Cpu>(m);
}
