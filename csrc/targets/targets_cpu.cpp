// Registers the CPU kernels of td_targets and categorical_projection.
#include <memory>

#include "targets_entry.h"

namespace automl_ext::targets_cpu {
namespace {

struct Cpu {
  static constexpr bool kDirect = true;
  static const TargetsKernels& kernels() { return targets_kernels(); }

  static void run(const char*, const Tensor&, const TargetsKernels::Projections* table, DType dtype,
                  const Projection& x) {
    parallel_rows(x.rows, x.atoms, [&](int64_t begin, int64_t end) {
      const std::unique_ptr<double[]> scratch(new double[x.atoms]);
      table[dtype](x, begin, end, scratch.get());
    });
  }
  static void run(const char*, const Tensor&, const TargetsKernels::Targets* table, DType dtype, const TdTargets& x) {
    parallel_rows(x.rows, x.actions, [&](int64_t begin, int64_t end) { table[dtype](x, begin, end); });
  }
};

}  // namespace
}  // namespace automl_ext::targets_cpu

STABLE_TORCH_LIBRARY_FRAGMENT(automl_ext, m) {
  // next_q and next_q_online are [..., actions], the others [...]. gamma is used without discounts.
  m.def(
      "td_targets(Tensor rewards, Tensor next_q, Tensor terminated, Tensor? discounts, Tensor? next_q_online, "
      "float gamma) -> Tensor");
  // next_probs is [..., atoms], the others [...]. gamma is used without discounts.
  m.def(
      "categorical_projection(Tensor next_probs, Tensor rewards, Tensor terminated, Tensor? discounts, float gamma, "
      "float v_min, float v_max) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  automl_ext::targets_entry::register_ops<automl_ext::targets_cpu::Cpu>(m);
}
