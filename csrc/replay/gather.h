// Copies sampled rows of a replay buffer. Sampled rows are scattered in memory, so all are prefetched first, and the
// cache misses overlap. Host code.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "windows.h"

namespace automl_ext {

struct StoredRows {
  const char* data;
  int64_t size;  // bytes per row
  const char* operator[](int64_t row) const { return data + row * size; }
};

// Prefetches the first cache line of each row that a window reads; the hardware prefetcher loads the rest of longer
// rows. For a window that wraps around or ends early, the line of its last step is not prefetched, which costs one
// cache miss.
inline void prefetch_windows(const Rings& rings, const int64_t* rows, int64_t n, int64_t n_step,
                             const StoredRows& observations, const StoredRows& actions) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t row = rows[i], end = std::min(row + n_step, rings.count - 1);
    __builtin_prefetch(rings.steps + row);
    __builtin_prefetch(&rings.steps[end].index);
    __builtin_prefetch(observations[row]);
    __builtin_prefetch(observations[end]);
    __builtin_prefetch(actions[row]);
  }
}

// Copies short rows of whole words (actions, small observations) in a loop, which is faster than calling memcpy.
inline void copy_row(const char* from, int64_t size, char* to) {
  if (size % 8 || size > 128) {
    std::memcpy(to, from, size_t(size));
  } else {
    for (int64_t k = 0; k < size; k += 8) std::memcpy(to + k, from + k, 8);
  }
}

inline void copy_rows(const StoredRows& from, const int64_t* rows, int64_t n, void* to) {
  char* out = static_cast<char*>(to);
  for (int64_t i = 0; i < n; ++i) copy_row(from[rows[i]], from.size, out + i * from.size);
}

inline void copy_next(const StoredRows& observations, const StoredRows& apart, const Next* places, int64_t n,
                      void* to) {
  char* out = static_cast<char*>(to);
  for (int64_t i = 0; i < n; ++i) {
    const Next& place = places[i];
    copy_row(place.final >= 0 ? apart[place.final] : observations[place.row], observations.size,
             out + i * observations.size);
  }
}

}  // namespace automl_ext
