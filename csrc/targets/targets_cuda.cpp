// Registers the CUDA kernels of td_targets and categorical_projection.
#include "targets_cuda.h"
#include "../common/cuda/device.h"
#include "targets_entry.h"

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CUDA, m) {
  automl_ext::targets_entry::register_ops<automl_ext::CudaDevice<automl_ext::targets_launches>>(m);
}
