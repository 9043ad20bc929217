// Entmax-1.5 and sparsemax over the rows of a contiguous [rows, n] array: what the kernels offer.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../common/dtype.h"

namespace automl_ext {

struct EntmaxKernels {
  // p = entmax(x) for rows [begin, end). scratch: entmax_scratch_bytes(n), one per thread.
  using Forward = void (*)(const void* x, void* p, int64_t n, int64_t begin, int64_t end, void* scratch);
  // dx from grad and p, for rows [begin, end).
  using Backward = void (*)(const void* grad, const void* p, void* dx, int64_t n, int64_t begin, int64_t end);
  Forward entmax15[kDTypes], sparsemax[kDTypes];
  Backward entmax15_backward[kDTypes], sparsemax_backward[kDTypes];
};

// The candidates of a row in double, and room for a whole vector behind them.
inline size_t entmax_scratch_bytes(int64_t n) { return size_t(n + 64 + n / 4) * sizeof(double); }

}  // namespace automl_ext
