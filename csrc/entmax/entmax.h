// Entmax-1.5 and sparsemax over the rows of a contiguous [rows, n] array: the interface of the CPU kernels.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../common/dtype.h"
#include "../instruction_sets/choice.h"

namespace automl_ext {

// The support of a sparse row, which is all that its gradient needs besides grad: the indices of the non-zero entries of p
// and their values, padded with zeros to whole vectors.
template <class T>
struct EntmaxSupport {
  static constexpr int kMost = 64;
  int64_t count;  // −1: more than kMost
  int32_t at[kMost];
  T p[kMost];
};
// For rows up to this length, the support saves no time.
constexpr int64_t kLongestWithoutSupport = 256;
// The size in bytes of the support of a row; automl_ext/ops/_register.py has the same formula.
inline int64_t entmax_support_bytes(int64_t n, int64_t element_size) {
  constexpr int64_t most = EntmaxSupport<float>::kMost;
  return n > kLongestWithoutSupport && n <= INT32_MAX ? 8 + most * (4 + element_size) : 0;
}

// Returns true if all indices of the supports are inside rows of n elements, so that a kernel accesses no other memory.
// The supports come from the caller of a backward op and may contain anything.
template <class T>
bool entmax_supports_fit(const EntmaxSupport<T>* support, int64_t rows, int64_t n) {
  uint32_t wrong = 0;  // the sign bit is set if an index is negative or not below n
  for (int64_t row = 0; row < rows; ++row) {
    const EntmaxSupport<T>& kept = support[row];
    if (kept.count < -1 || kept.count > EntmaxSupport<T>::kMost) return false;
    for (int64_t k = 0; k < kept.count; ++k) wrong |= uint32_t(kept.at[k]) | (uint32_t(n - 1) - uint32_t(kept.at[k]));
  }
  return !(wrong >> 31);
}

struct EntmaxKernels {
  // p = entmax(x) for rows [begin, end). support: one EntmaxSupport per row, or null. scratch: entmax_scratch_bytes(n)
  // bytes, separate for each thread.
  using Forward = void (*)(const void* x, void* p, void* support, int64_t n, int64_t begin, int64_t end, void* scratch);
  // Computes dx from grad, p and the support of the forward pass (or null) for rows [begin, end).
  using Backward = void (*)(const void* grad, const void* p, const void* support, void* dx, int64_t n, int64_t begin,
                            int64_t end);
  Forward entmax15[kDTypes], sparsemax[kDTypes];
  Backward entmax15_backward[kDTypes], sparsemax_backward[kDTypes];
};

// Space for the candidates of a row in double, with padding, and for the maxima of its blocks.
inline size_t entmax_scratch_bytes(int64_t n) { return size_t(n + 64 + n / 4) * sizeof(double); }

DECLARE_KERNELS(EntmaxKernels, entmax)

}  // namespace automl_ext
