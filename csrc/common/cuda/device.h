// A call of an op on a GPU: sets the current device, returns its stream and checks for errors. Used by the entry functions;
// kernels and launches do not depend on torch.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "../dtype.h"

#ifndef AUTOML_EXT_CUDA_ARCHS
#define AUTOML_EXT_CUDA_ARCHS "unknown architectures"
#endif

namespace automl_ext {

class CudaCall {
 public:
  CudaCall(const char* op, const at::Tensor& x) : op_(op), guard_(device_of(op, x)) {}

  void* stream() const { return at::cuda::getCurrentCUDAStream().stream(); }

  // Call after the launches: raises launch errors, without waiting for the kernels.
  void check() const {
    const cudaError_t error = cudaGetLastError();
    if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction ||
        error == cudaErrorUnsupportedPtxVersion) {
      cudaDeviceProp gpu;
      C10_CUDA_CHECK(cudaGetDeviceProperties(&gpu, guard_.current_device().index()));
      TORCH_CHECK(false, op_, ": the kernels were built for CUDA architectures " AUTOML_EXT_CUDA_ARCHS ", which ",
                  gpu.name, " (", gpu.major, ".", gpu.minor, ") cannot run (", cudaGetErrorString(error),
                  "). Rebuild: TORCH_CUDA_ARCH_LIST=", gpu.major, ".", gpu.minor,
                  " AUTOML_EXT_CUDA=1 pip install --no-build-isolation --force-reinstall --no-deps"
                  " <path to the automl_ext source>");
    }
    C10_CUDA_CHECK(error);
  }

 private:
  // The dispatcher selected the CUDA op, so if x is not on a GPU, another argument is.
  static c10::Device device_of(const char* op, const at::Tensor& x) {
    TORCH_CHECK_VALUE(x.is_cuda(), op, ": expected all tensors on one device, got some on CUDA and one on ", x.device(),
                      "; use .to('cuda') with that one");
    return x.device();
  }

  const char* op_;
  c10::cuda::CUDAGuard guard_;
};

// The parameter Device of the entry functions of a family, from the function that returns its launches.
template <auto launches>
struct CudaDevice {
  static const auto& kernels() { return launches(); }

  template <class Launch, class Arrays>
  static void run(const char* op, const at::Tensor& like, Launch launch, DType dtype, const Arrays& arrays) {
    const CudaCall call(op, like);
    launch(dtype, arrays, call.stream());
    call.check();
  }
};

}  // namespace automl_ext
