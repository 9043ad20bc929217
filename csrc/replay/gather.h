// Copies sampled rows of a replay's arrays. They lie all over its memory, so the misses are started together. Host.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "windows.h"

namespace automl_ext {

struct Rows {
  const char* data;
  int64_t size;  // bytes of a row
  const char* operator[](int64_t row) const { return data + row * size; }
};

// The first cache line of what each window reads (longer rows the processor foresees itself). A window that wraps or ends
// early misses its last step's line, no more.
inline void prefetch_windows(const Rings& rings, const int64_t* rows, int64_t n, int64_t n_step,
                             const Rows& observations, const Rows& actions) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t row = rows[i], end = std::min(row + n_step, rings.count - 1);
    __builtin_prefetch(rings.steps + row);
    __builtin_prefetch(&rings.steps[end].index);
    __builtin_prefetch(observations[row]);
    __builtin_prefetch(observations[end]);
    __builtin_prefetch(actions[row]);
  }
}

// Short rows of whole words, actions and small observations, are not worth a call.
inline void copy_row(const char* from, int64_t size, char* to) {
  if (size % 8 || size > 128) {
    std::memcpy(to, from, size_t(size));
  } else {
    for (int64_t k = 0; k < size; k += 8) std::memcpy(to + k, from + k, 8);
  }
}

inline void copy_rows(const Rows& from, const int64_t* rows, int64_t n, void* to) {
  char* out = static_cast<char*>(to);
  for (int64_t i = 0; i < n; ++i) copy_row(from[rows[i]], from.size, out + i * from.size);
}

inline void copy_next(const Rows& observations, const Rows& apart, const Next* places, int64_t n, void* to) {
  char* out = static_cast<char*>(to);
  for (int64_t i = 0; i < n; ++i) {
    const Next& place = places[i];
    copy_row(place.final >= 0 ? apart[place.final] : observations[place.row], observations.size,
             out + i * observations.size);
  }
}

}  // namespace automl_ext
