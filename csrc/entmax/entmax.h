// Entmax-1.5 and sparsemax over the rows of a contiguous [rows, n] array: what the kernels offer.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../common/dtype.h"

namespace automl_ext {

// What the gradient of a sparse row needs beside grad: where p is not 0, and what it is there; zeros follow, up to a whole
// vector.
template <class T>
struct EntmaxSupport {
  static constexpr int kMost = 64;
  int64_t count;  // −1: more than kMost
  int32_t at[kMost];
  T p[kMost];
};
// In rows that are not longer it would save nothing.
constexpr int64_t kLongestWithoutSupport = 256;
// Bytes for each row of this length. As automl_ext/ops/_register.py.
inline int64_t entmax_support_bytes(int64_t n, int64_t element_size) {
  constexpr int64_t most = EntmaxSupport<float>::kMost;
  return n > kLongestWithoutSupport && n <= INT32_MAX ? 8 + most * (4 + element_size) : 0;
}

// Whether each of `rows` supports could be of a row of n elements: what a kernel reads and writes with it then stays inside
// the row. Supports come from the caller of a backward op, so they may hold anything.
template <class T>
bool entmax_supports_fit(const EntmaxSupport<T>* support, int64_t rows, int64_t n) {
  uint32_t wrong = 0;  // the sign bit of a place that is negative or not below n
  for (int64_t row = 0; row < rows; ++row) {
    const EntmaxSupport<T>& kept = support[row];
    if (kept.count < -1 || kept.count > EntmaxSupport<T>::kMost) return false;
    for (int64_t k = 0; k < kept.count; ++k) wrong |= uint32_t(kept.at[k]) | (uint32_t(n - 1) - uint32_t(kept.at[k]));
  }
  return !(wrong >> 31);
}

struct EntmaxKernels {
  // p = entmax(x) for rows [begin, end). support: an EntmaxSupport for each row, or null. scratch:
  // entmax_scratch_bytes(n), one per thread.
  using Forward = void (*)(const void* x, void* p, void* support, int64_t n, int64_t begin, int64_t end, void* scratch);
  // dx from grad, p and the forward pass' support, or null, for rows [begin, end).
  using Backward = void (*)(const void* grad, const void* p, const void* support, void* dx, int64_t n, int64_t begin,
                            int64_t end);
  Forward entmax15[kDTypes], sparsemax[kDTypes];
  Backward entmax15_backward[kDTypes], sparsemax_backward[kDTypes];
};

// The candidates of a row in double, and room for a whole vector behind them.
inline size_t entmax_scratch_bytes(int64_t n) { return size_t(n + 64 + n / 4) * sizeof(double); }

// The kernels of the chosen instruction set. Defined in instruction_sets/kernels.cpp.
const EntmaxKernels& entmax_kernels();

}  // namespace automl_ext
