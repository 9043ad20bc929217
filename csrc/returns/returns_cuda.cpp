// Registers the CUDA kernels of the returns: lambda_returns, gae, n_step_returns, vtrace and retrace.
#include "../common/cuda/device.h"
#include "returns_cuda.h"
#include "returns_entry.h"

namespace automl_ext {
namespace {

struct Cuda {
  static const ReturnsLaunches& kernels() { return returns_launches(); }

  template <class Launch, class Arrays>
  static void run(const char* op, const at::Tensor& like, Launch launch, DType dtype, const Arrays& arrays) {
    const CudaCall call(op, like);
    launch(dtype, arrays, call.stream());
    call.check();
  }
};

}  // namespace
}  // namespace automl_ext

TORCH_LIBRARY_IMPL(automl_ext, CUDA, m) { automl_ext::returns_entry::register_ops<automl_ext::Cuda>(m); }
