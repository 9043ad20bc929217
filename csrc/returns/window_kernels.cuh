// CUDA kernel of windows.inc: one thread sums the window of one step. A block covers blockDim.x columns and blockDim.y
// steps, so that overlapping windows share cache lines.
#pragma once
#include "steps.cuh"

namespace automl_ext {

constexpr int kWindowThreads = 512;

template <class Window>
__device__ __forceinline__ void run_windows(const Trajectory& x) {
  const int64_t across = (x.columns + blockDim.x - 1) / blockDim.x;
  const int64_t t = blockIdx.x / across * blockDim.y + threadIdx.y;
  const int64_t column = blockIdx.x % across * blockDim.x + threadIdx.x;
  if (t < x.steps && column < x.columns) Window::run(x, {t, t * x.columns + column, true});
}
template <template <class> class Window, class T>
__global__ void __launch_bounds__(kWindowThreads) windows(const Trajectory x) {
  run_windows<Window<Column<T>>>(x);
}
// Invalid steps carry.
template <template <class> class Window, class T>
__global__ void __launch_bounds__(kWindowThreads) carrying_windows(const Trajectory x) {
  run_windows<Window<Column<T, true>>>(x);
}

}  // namespace automl_ext
