// n-step windows of a replay's rings: the rule of n_step_returns (returns/n_step_kernel.inc), from any start. Host.
#pragma once
#include <cstdint>

namespace automl_ext {

// Rings of `slots` steps, one after another. A step whose flags are 0 goes on in the next slot.
enum StepFlags : uint8_t { kTerminated = 1, kTruncated = 2, kCut = 4 };  // kCut: a ring's newest step, among others
struct Rings {
  const float* rewards;
  const uint8_t* flags;
  const int32_t* finals;  // where the step's next observation is kept apart; -1: it is in the next slot
  int64_t slots;
};

struct Windows {
  float *returns, *discounts;
  bool* terminated;
  int64_t *next_rows, *finals;  // where the observation after the window is
};

inline int64_t next_row(int64_t row, int64_t slots) { return (row + 1) % slots ? row + 1 : row + 1 - slots; }

// sum_{k<K} gamma^k r_{t+k}, K = min(n_step, steps to the first flag); discounts gamma^K, 0 where terminated.
inline void n_step_windows(const Rings& x, const int64_t* rows, int64_t n, int64_t n_step, double gamma,
                           const Windows& out) {
  for (int64_t i = 0; i < n; ++i) {
    int64_t row = rows[i];
    float result = x.rewards[row];
    double power = gamma;
    for (int64_t k = 1; k < n_step && !x.flags[row]; ++k) {
      row = next_row(row, x.slots);
      result += float(power) * x.rewards[row];
      power *= gamma;
    }
    out.returns[i] = result;
    out.terminated[i] = x.flags[row] & kTerminated;
    out.discounts[i] = out.terminated[i] ? 0.0f : float(power);
    out.next_rows[i] = next_row(row, x.slots);
    out.finals[i] = x.finals[row];
  }
}

}  // namespace automl_ext
