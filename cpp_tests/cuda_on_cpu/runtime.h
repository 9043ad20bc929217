// The functions of the CUDA runtime that launch code calls.
#pragma once
#include "launch.h"

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin };

namespace cuda_on_cpu {
inline int multiprocessors = 4;       // tests may change it
inline bool attributes_fail = false;  // cudaFuncSetAttribute returns an error
inline int attribute_calls = 0;       // of cudaFuncSetAttribute
}  // namespace cuda_on_cpu

// An invalid launch throws cuda_on_cpu::Fault, so there is never an error to return.
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) { return error ? "invalid argument" : "no error"; }

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int /*device*/) {
  *value =
      attribute == cudaDevAttrMultiProcessorCount ? cuda_on_cpu::multiprocessors : int(cuda_on_cpu::max_shared_bytes);
  return cudaSuccess;
}

template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute, int value) {
  ++cuda_on_cpu::attribute_calls;
  if (cuda_on_cpu::attributes_fail || value < 0 || size_t(value) > cuda_on_cpu::max_shared_bytes)
    return cudaErrorInvalidValue;
  cuda_on_cpu::allowed_shared_bytes()[reinterpret_cast<const void*>(kernel)] = size_t(value);
  return cudaSuccess;
}
