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
static_assert(sizeof(Step) == 24, "automl_ext/rl/replay/_windows_reference.py has the same layout");

struct Rings {
  const Step* steps;
  int64_t count, slots;  // in all, and of each ring
};

struct Next {  // where the observation after a window is
  int64_t row, final;
};

struct Windows {
  float *returns, *discounts;
  bool* terminated;
  int64_t* indices;  // of the first steps
  Next* next;
};

// sum_{k<K} gamma^k r_{t+k}, K = min(n_step, steps to the first flag); discounts gamma^K, 0 where terminated.
inline void n_step_windows(const Rings& rings, const int64_t* rows, int64_t n, int64_t n_step, double gamma,
                           const Windows& out) {
  const Step* steps = rings.steps;
  for (int64_t i = 0; i < n; ++i) {
    int64_t row = rows[i];
    const int64_t end = row - row % rings.slots + rings.slots;  // of its ring
    const auto after = [&](int64_t row) { return row + 1 < end ? row + 1 : end - rings.slots; };
    float result = steps[row].reward;
    double power = gamma;
    for (int64_t k = 1; k < n_step && !steps[row].flags; ++k) {
      row = after(row);
      result += float(power) * steps[row].reward;
      power *= gamma;
    }
    out.returns[i] = result;
    out.terminated[i] = steps[row].flags & kTerminated;
    out.discounts[i] = out.terminated[i] ? 0.0f : float(power);
    out.indices[i] = steps[rows[i]].index;
    out.next[i] = {after(row), steps[row].final};
  }
}

// The rows of the transitions with these indices; -1 where one is not held, or not any more.
inline void held_rows(const Rings& rings, const int64_t* indices, int64_t n, int64_t* rows) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t row = indices[i] % rings.count;
    rows[i] = indices[i] >= 0 && rings.steps[row].index == indices[i] ? row : -1;
  }
}

}  // namespace automl_ext
