// A call of an op on a GPU: sets the current device, returns its stream and checks for errors. Used by the entry functions;
// kernels and launches do not depend on torch.
#pragma once
#include <cuda_runtime.h>
#include <torch/csrc/stable/macros.h>

#include "../tensors.h"

#ifndef AUTOML_EXT_CUDA_ARCHS
#define AUTOML_EXT_CUDA_ARCHS "unknown architectures"
#endif

namespace automl_ext {

class CudaCall {
 public:
  CudaCall(const char* op, const Tensor& x) : op_(op), device_(index_of(op, x)) {
    abi::check(aoti_torch_create_cuda_guard(device_, &guard_));
  }
  CudaCall(const CudaCall&) = delete;
  CudaCall& operator=(const CudaCall&) = delete;
  ~CudaCall() { aoti_torch_delete_cuda_guard(guard_); }

  void* stream() const {
    void* stream;
    abi::check(aoti_torch_get_current_cuda_stream(device_, &stream));
    return stream;
  }

  // Call after the launches: raises launch errors, without waiting for the kernels.
  void check() const {
    const cudaError_t error = cudaGetLastError();
    if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction ||
        error == cudaErrorUnsupportedPtxVersion) {
      cudaDeviceProp gpu;
      STD_CUDA_CHECK(cudaGetDeviceProperties(&gpu, device_));
      fail<std::runtime_error>(op_, ": the kernels were built for CUDA architectures " AUTOML_EXT_CUDA_ARCHS ", which ",
                               gpu.name, " (", gpu.major, ".", gpu.minor, ") cannot run (", cudaGetErrorString(error),
                               "). Rebuild: TORCH_CUDA_ARCH_LIST=", gpu.major, ".", gpu.minor,
                               " AUTOML_EXT_CUDA=1 pip install --no-build-isolation --force-reinstall --no-deps"
                               " <path to the automl_ext source>");
    }
    STD_CUDA_CHECK(error);
  }

 private:
  // The dispatcher selected the CUDA op, so if x is not on a GPU, another argument is.
  static int32_t index_of(const char* op, const Tensor& x) {
    CHECK_VALUE(x.device().is_cuda(), op, ": expected all tensors on one device, got some on CUDA and one on ",
                x.device(), "; use .to('cuda') with that one");
    return x.device().index;
  }

  const char* op_;
  int32_t device_;
  CUDAGuardHandle guard_;
};

// Memory for the launches of a call. Torch reuses it for later work of the stream only.
class Workspace {
 public:
  Workspace(int64_t bytes, const Tensor& like) {
    if (bytes) memory_ = empty({bytes}, ScalarType::Byte, like);
  }
  void* get() const { return memory_.defined() ? memory_.mutable_data_ptr() : nullptr; }

 private:
  Tensor memory_;
};

// The parameter Device of the entry functions of a family, from the function that returns its launches.
template <auto launches>
struct CudaDevice {
  static constexpr bool kDirect = false;
  static const auto& kernels() { return launches(); }

  template <class Launch, class Arrays>
  static void run(const char* op, const Tensor& like, Launch launch, DType dtype, const Arrays& arrays) {
    const CudaCall call(op, like);
    launch(dtype, arrays, call.stream());
    call.check();
  }
};

}  // namespace automl_ext
