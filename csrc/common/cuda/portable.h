// The CUDA features that kernels and launches use. Tests without a GPU define the same names first and run the kernels on the
// CPU, with one fiber per CUDA thread (cpp_tests/cuda_on_cpu).
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_runtime.h>

// An array of n elements in shared memory, one that is read by 16 bytes, and the dynamic shared memory whose size is given at
// the launch. Not all are aligned to 16 bytes, because nvcc then unrolls loops that need no speed.
#define KERNEL_SHARED(T, name, n) __shared__ T name[n]
#define KERNEL_SHARED_PACKS(T, name, n) __shared__ __align__(16) T name[n]
#define KERNEL_DYNAMIC_SHARED(T, name)                                   \
  extern __shared__ __align__(16) unsigned char kernel_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(kernel_dynamic_shared)
// True if for_dtype compiles a launch for the dtype. Sanitizer builds of the tests on the CPU compile fewer.
#ifndef KERNEL_COMPILES  // define it to compile fewer while you work on a kernel
#define KERNEL_COMPILES(dtype) true
#endif
// Put the kernel in parentheses if its template arguments contain a comma.
#define KERNEL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#elif !defined(KERNEL_LAUNCH)
#error "CUDA kernels are compiled by nvcc, or after cpp_tests/cuda_on_cpu/cuda_on_cpu.h"
#endif
