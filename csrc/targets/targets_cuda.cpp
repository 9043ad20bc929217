// Registers the CUDA kernels of td_targets and categorical_projection.
#include "../common/cuda/device.h"
#include "targets_cuda.h"
#include "targets_entry.h"

namespace automl_ext {
namespace {

struct Cuda {
  static const TargetsLaunches& kernels() { return targets_launches(); }

  template <class Launch, class Arrays>
  static void run(const char* op, const at::Tensor& like, Launch launch, DType dtype, const Arrays& arrays) {
    const CudaCall call(op, like);
    launch(dtype, arrays, call.stream());
    call.check();
  }
};

}  // namespace
}  // namespace automl_ext

TORCH_LIBRARY_IMPL(automl_ext, CUDA, m) { automl_ext::targets_entry::register_ops<automl_ext::Cuda>(m); }
