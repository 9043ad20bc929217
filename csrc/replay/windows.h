// n-step windows of a replay's rings: the rule of n_step_returns (returns/n_step_kernel.inc), from any start. Host.
#pragma once
#include <cstdint>

namespace automl_ext {

// What a transition has beside its observation and action, side by side: one cache miss for all. Rings of `slots` of
// them come one after another. Where flags is 0, the next slot goes on from here.
enum StepFlags : uint8_t { kTerminated = 1, kTruncated = 2, kCut = 4 };  // kCut: a ring's newest step, among others
struct Step {
  int64_t index;
  float reward;
  int32_t final;  // where the next observation is kept apart; -1: it is in the next slot
  uint8_t flags;
};
static_assert(sizeof(Step) == 24, "automl_ext/rl/_windows_reference.py has the same layout");

struct Windows {
  float *returns, *discounts;
  bool* terminated;
  int64_t *next_rows, *finals;  // where the observation after the window is
  int64_t* indices;             // of the first steps
};

inline int64_t next_row(int64_t row, int64_t slots) { return (row + 1) % slots ? row + 1 : row + 1 - slots; }

// sum_{k<K} gamma^k r_{t+k}, K = min(n_step, steps to the first flag); discounts gamma^K, 0 where terminated.
inline void n_step_windows(const Step* steps, int64_t slots, const int64_t* rows, int64_t n, int64_t n_step,
                           double gamma, const Windows& out) {
  for (int64_t i = 0; i < n; ++i) __builtin_prefetch(steps + rows[i]);
  for (int64_t i = 0; i < n; ++i) {
    int64_t row = rows[i];
    float result = steps[row].reward;
    double power = gamma;
    for (int64_t k = 1; k < n_step && !steps[row].flags; ++k) {
      row = next_row(row, slots);
      result += float(power) * steps[row].reward;
      power *= gamma;
    }
    out.returns[i] = result;
    out.terminated[i] = steps[row].flags & kTerminated;
    out.discounts[i] = out.terminated[i] ? 0.0f : float(power);
    out.next_rows[i] = next_row(row, slots);
    out.finals[i] = steps[row].final;
    out.indices[i] = steps[rows[i]].index;
  }
}

}  // namespace automl_ext
