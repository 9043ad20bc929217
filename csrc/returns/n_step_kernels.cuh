// CUDA kernels of n-step returns. As in n_step_kernel.inc, one thread sums the window of one step. A block covers
// blockDim.x columns and blockDim.y steps, so that overlapping windows share cache lines.
#pragma once
#include "steps.cuh"

namespace automl_ext {

constexpr int kNStepThreads = 512;

struct Place {
  int64_t t, at;
  bool exists;
};
__device__ __forceinline__ Place place_of_thread(const Trajectory& x) {
  const int64_t across = (x.columns + blockDim.x - 1) / blockDim.x;
  const int64_t t = blockIdx.x / across * blockDim.y + threadIdx.y;
  const int64_t column = blockIdx.x % across * blockDim.x + threadIdx.x;
  return {t, t * x.columns + column, t < x.steps && column < x.columns};
}

// sum_{k<K} gamma^k r_{t+k} + gamma^K (1 - terminated_j) V'_j, where j = t + K - 1 is the last step of the window.
template <class T>
__global__ void __launch_bounds__(kNStepThreads) n_step_windows(const Trajectory x) {
  using C = Compute<T>;
  const Place place = place_of_thread(x);
  if (!place.exists) return;
  C result = 0, discount = 0;
  int64_t k = 0;
  double power = 1;
  for (bool open = true; open; ++k) {
    const int64_t at = place.at + k * x.columns;
    const Flags flags = flags_at(x, place.t + k, at);
    const C r = load<T>(x.rewards, at);
    if (!flags.valid) break;  // possible at the first step only: a window ends before an invalid step
    result += C(power) * r;
    power *= x.gamma;
    open = !flags.cut && k + 1 < x.n;
    if (!open && flags.live) {
      discount = C(power);
      if (x.next_values) result += discount * load<T>(x.next_values, at);
    }
  }
  store<T>(x.out[0], place.at, result);
  store<T>(x.out[1], place.at, discount);
  x.last[place.at] = place.t + (k > 0 ? k - 1 : 0);
}

// Gradients of the rewards and next values, the transposed sums: dr_i is the sum of gamma^k grad_{i-k} over the windows
// that contain step i; dV'_i is the sum of gamma^K grad over the windows that end at i.
template <class T>
__global__ void __launch_bounds__(kNStepThreads) n_step_gradients(const Trajectory x) {
  using C = Compute<T>;
  const Place place = place_of_thread(x);
  if (!place.exists) return;
  const Flags flags = flags_at(x, place.t, place.at);
  C reward = 0, bootstrap = 0;
  double power = 1;
  bool open = flags.valid;
  for (int64_t k = 0; open; ++k) {
    const C grad = load<T>(x.grad, place.at - k * x.columns);
    reward += C(power) * grad;
    power *= x.gamma;
    const bool longest = k + 1 == x.n;
    if (longest || flags.cut) bootstrap += C(power) * grad;
    open = !longest && k < place.t && !flags_at(x, place.t - k - 1, place.at - (k + 1) * x.columns).cut;
  }
  store<T>(x.out[0], place.at, reward);
  if (x.out[1]) store<T>(x.out[1], place.at, keep(flags.live, bootstrap));
}

}  // namespace automl_ext
