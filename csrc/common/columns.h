// Columns: rows along another dim than the last, which a kernel reads where they are.
#pragma once
#include <cstdint>

#include "dtype.h"

namespace automl_ext {

// The columns that a kernel reads: of at most `longest` elements, if at least `fewest` columns are adjacent. Other rows are
// copied.
struct Columns {
  int64_t longest = -1, fewest = 1;  // none
};
using ColumnsOf = Columns(DType);

constexpr Columns no_columns(DType) { return {}; }
// Columns are in registers, and a warp reads 32 adjacent elements: whole cache lines.
constexpr Columns entmax_cuda_columns(DType dtype) { return {dtype == kFloat64 ? 128 : 512, 32}; }
constexpr Columns gumbel_cuda_columns(DType) { return {128, 32}; }

}  // namespace automl_ext
