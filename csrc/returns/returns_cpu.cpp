// The returns family on the CPU.
#include <memory>

#include "../common/kernels.h"
#include "returns_entry.h"

namespace automl_ext {
namespace {

struct Cpu {
  static const ReturnsKernels& kernels() { return automl_ext::kernels().returns; }

  // In blocks of columns of whole vectors; every column is its own sum, so threads change nothing.
  static void run(const char*, const at::Tensor&, const ReturnsKernels::Columns* table, DType dtype,
                  const Trajectory& x) {
    constexpr int64_t kBlock = 64;
    const auto kernel = table[dtype];
    parallel_rows((x.columns + kBlock - 1) / kBlock, x.steps * kBlock, [&](int64_t begin, int64_t end) {
      kernel(x, begin * kBlock, std::min(end * kBlock, x.columns));
    });
  }
  static void run(const char*, const at::Tensor&, const ReturnsKernels::Rows* table, DType dtype, const Projection& x) {
    parallel_rows(x.rows, x.atoms, [&](int64_t begin, int64_t end) {
      const std::unique_ptr<double[]> scratch(new double[x.atoms]);
      table[dtype](x, begin, end, scratch.get());
    });
  }
  static void run(const char*, const at::Tensor&, const ReturnsKernels::Targets* table, DType dtype, const TdTargets& x) {
    parallel_rows(x.rows, x.actions, [&](int64_t begin, int64_t end) { table[dtype](x, begin, end); });
  }
};

}  // namespace
}  // namespace automl_ext

TORCH_LIBRARY_IMPL(automl_ext, CPU, m) { automl_ext::returns_entry::register_ops<automl_ext::Cpu>(m); }
