// Registers the CUDA kernels of the returns: lambda_returns, gae, n_step_returns, vtrace and retrace.
#include "returns_cuda.h"
#include "../common/cuda/device.h"
#include "returns_entry.h"

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CUDA, m) {
  automl_ext::returns_entry::register_ops<automl_ext::CudaDevice<automl_ext::returns_launches>>(m);
}
