// Registers the CPU kernels of categorical_log_probs.
#include "policy_entry.h"

namespace automl_ext::policy_cpu {
namespace {

struct Cpu {
  static constexpr bool kDirect = true;
  static void categorical(DType dtype, const Tensor&, const CategoricalCall& x) {
    parallel_rows(x.rows, x.n, [&](int64_t begin, int64_t end) { policy_kernels().categorical[dtype](x, begin, end); });
  }
  static void categorical_backward(DType dtype, const Tensor&, const CategoricalBackward& x) {
    parallel_rows(x.rows, x.n,
                  [&](int64_t begin, int64_t end) { policy_kernels().categorical_backward[dtype](x, begin, end); });
  }
};

}  // namespace
}  // namespace automl_ext::policy_cpu

STABLE_TORCH_LIBRARY_FRAGMENT(automl_ext, m) {
  // logits [..., n], actions int64 [...]; the results have the shape of actions.
  m.def("categorical_log_probs(Tensor logits, Tensor actions) -> (Tensor log_probs, Tensor entropy)");
  m.def(
      "_categorical_log_probs_trained(Tensor logits, Tensor actions) "
      "-> (Tensor log_probs, Tensor entropy, Tensor statistics)");
  m.def(
      "_categorical_log_probs_backward(Tensor? grad_log_probs, Tensor? grad_entropy, Tensor logits, Tensor actions, "
      "Tensor? statistics=None) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  automl_ext::policy_entry::register_ops<automl_ext::policy_cpu::Cpu>(m);
}
