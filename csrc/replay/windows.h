// n-step windows in the ring buffers of a replay buffer, from any start row. The definition of
// n_step_returns (returns/n_step_kernel.inc) applies. Host code.
#pragma once
#include <cstdint>

namespace automl_ext {

// A transition without its observation and action; stored together, so that reading it costs one cache miss. Rings of
// `slots` steps each are contiguous. If flags is 0, the next slot holds the next step of the episode.
// kCut: no next step is stored; for example at the newest step of a ring.
enum StepFlags : uint8_t { kTerminated = 1, kTruncated = 2, kCut = 4 };
struct Step {
  int64_t index;
  float reward;
  int32_t final;  // row of the next observation among the final observations; -1: it is in the next slot
  uint8_t flags;
  uint16_t age;  // of stacked frames: steps since the episode's start, and where the frames before it are; see _ring.py
  int32_t start;
};
static_assert(sizeof(Step) == 24, "must match the layout in automl_ext/rl/replay/_windows_reference.py");

struct Rings {
  const Step* steps;
  int64_t count, slots;  // number of steps in all rings; in each ring
};

// Location of the observation after a window: among the final observations if final >= 0, else in the slot `row`.
struct Next {
  int64_t row, final;
};

struct Windows {
  float *returns, *discounts;
  bool* terminated;
  int64_t* indices;  // of the windows' first steps
  Next* next;
};

// sum_{k<K} gamma^k r_{t+k}, K = min(n_step, steps to the first flag); discounts gamma^K, 0 where terminated.
inline void n_step_windows(const Rings& rings, const int64_t* rows, int64_t n, int64_t n_step, double gamma,
                           const Windows& out) {
  const Step* steps = rings.steps;
  for (int64_t i = 0; i < n; ++i) {
    int64_t row = rows[i];
    const int64_t end = row - row % rings.slots + rings.slots;  // end of the row's ring
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

// The rows of the transitions with these indices; -1 where a transition is not stored, or was overwritten.
inline void held_rows(const Rings& rings, const int64_t* indices, int64_t n, int64_t* rows) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t row = indices[i] % rings.count;
    rows[i] = indices[i] >= 0 && rings.steps[row].index == indices[i] ? row : -1;
  }
}

}  // namespace automl_ext
