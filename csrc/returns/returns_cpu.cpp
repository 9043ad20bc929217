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

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  automl_ext::returns_entry::register_ops<automl_ext::returns_cpu::Cpu>(m);
}
