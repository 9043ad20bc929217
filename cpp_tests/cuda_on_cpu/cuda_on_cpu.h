// Runs CUDA kernels on the CPU with one fiber per CUDA thread. Replaces <cuda_runtime.h> in builds without nvcc, so
// that tests run the kernels of the library. For programs with a single translation unit.
//
// A launch throws cuda_on_cpu::Fault for:
//   a barrier or collective that threads reach at different lines, or that some threads never reach;
//   a shuffle by a lane outside its mask, or from a lane that does not participate;
//   a launch that exceeds the limits of a device.
// Shared memory is filled with ones (NaN, -1) until it is written. cuda_on_cpu::seed determines the order of blocks and
// threads. ASan detects accesses outside shared and global memory. TSan treats blocks as unordered, and threads of a
// block as ordered only by __syncthreads, __syncwarp and __threadfence: shuffles and votes do not order memory in CUDA
// either. TSan distinguishes only about 250 threads and can miss races in blocks of more than 192: also test small
// blocks.
//
// Not emulated: timing, coalescing, fused multiply-adds, lockstep execution of warps, concurrent blocks (blocks run one
// after another).
#pragma once
#include <math.h>  // not <cmath>: the unqualified exp(float) must return float, as in CUDA

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "collectives.h"
#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

#define threadIdx (cuda_on_cpu::self->index)
#define blockIdx (cuda_on_cpu::block->index)
#define blockDim (cuda_on_cpu::block->launch.block)
#define gridDim (cuda_on_cpu::block->launch.grid)
constexpr int warpSize = 32;

// The macros of csrc/common/cuda/portable.h, for syntax that only nvcc understands.
#define KERNEL_SHARED(T, name, n)            \
  static const char name##_shared_memory = 0; \
  T* const name = cuda_on_cpu::static_shared<T>(&name##_shared_memory, n)
#define KERNEL_SHARED_PACKS KERNEL_SHARED
#define KERNEL_DYNAMIC_SHARED(T, name) T* const name = cuda_on_cpu::dynamic_shared<T>()
#define KERNEL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  cuda_on_cpu::launch(#kernel, kernel, grid, block, shared_bytes, stream, __VA_ARGS__)

// The dtypes whose launches are compiled. Sanitizer builds compile few, which takes less time. Out-of-bounds accesses
// depend on the element size, so ASan tests the largest and a small one; races do not depend on it, except where a kernel
// has a path for 16-bit types (CUDA_ON_CPU_16_BITS).
#if defined(CUDA_ON_CPU_ASAN)
#define KERNEL_COMPILES(dtype) ((dtype) == kFloat64 || (dtype) == kBFloat16)
#elif defined(CUDA_ON_CPU_TSAN)
#ifdef CUDA_ON_CPU_16_BITS
#define KERNEL_COMPILES(dtype) ((dtype) == kFloat32 || (dtype) == kBFloat16)
#else
#define KERNEL_COMPILES(dtype) ((dtype) == kFloat32)
#endif
#else
#define KERNEL_COMPILES(dtype) true
#endif

#define CUDA_ON_CPU_SITE(op) \
  cuda_on_cpu::Site { op, __FILE__, __LINE__, __COUNTER__ }
#define __syncthreads() cuda_on_cpu::sync_block(CUDA_ON_CPU_SITE("__syncthreads"))
#define __syncwarp(...) cuda_on_cpu::sync_warp(CUDA_ON_CPU_SITE("__syncwarp"), cuda_on_cpu::lanes(__VA_ARGS__))
#define __shfl_sync(...) cuda_on_cpu::shuffle_index(CUDA_ON_CPU_SITE("__shfl_sync"), __VA_ARGS__)
#define __shfl_xor_sync(...) cuda_on_cpu::shuffle_xor(CUDA_ON_CPU_SITE("__shfl_xor_sync"), __VA_ARGS__)
#define __shfl_down_sync(...) cuda_on_cpu::shuffle_down(CUDA_ON_CPU_SITE("__shfl_down_sync"), __VA_ARGS__)
#define __shfl_up_sync(...) cuda_on_cpu::shuffle_up(CUDA_ON_CPU_SITE("__shfl_up_sync"), __VA_ARGS__)
#define __ballot_sync(...) cuda_on_cpu::ballot(CUDA_ON_CPU_SITE("__ballot_sync"), __VA_ARGS__)
#define __any_sync(...) cuda_on_cpu::any(CUDA_ON_CPU_SITE("__any_sync"), __VA_ARGS__)
#define __all_sync(...) cuda_on_cpu::all(CUDA_ON_CPU_SITE("__all_sync"), __VA_ARGS__)
uint32_t __activemask() = delete;  // results must not depend on which lanes happen to run together

// Integers only: float sums in a varying order are not reproducible.
template <class T>
T atomicAdd(T* p, std::common_type_t<T> value) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>);
  return __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
}

// For TSan: all accesses before earlier fences of the kernel happen before the accesses after this fence.
inline void __threadfence() {
  cuda_on_cpu::acquire(&cuda_on_cpu::block->launch.call);
  cuda_on_cpu::release(&cuda_on_cpu::block->launch.call);
}

template <class T>
T __ldg(const T* p) {
  return *p;
}

namespace cuda_on_cpu {
template <class To, class From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace cuda_on_cpu

inline unsigned __float_as_uint(float x) { return cuda_on_cpu::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return cuda_on_cpu::bit_cast<float>(x); }
inline int __float_as_int(float x) { return cuda_on_cpu::bit_cast<int>(x); }
inline float __int_as_float(int x) { return cuda_on_cpu::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return cuda_on_cpu::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return cuda_on_cpu::bit_cast<double>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }

using std::max;
using std::min;
