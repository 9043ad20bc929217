// Alpha-entmax, normmax and budget-sparsemax over the rows of a contiguous [rows, n] array: the interface of the CPU kernels.
// Formulas: bisect_root.inc.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../common/dtype.h"
#include "../instruction_sets/choice.h"

namespace automl_ext {

// The codes of the maps in the schemas. Alpha-entmax without the division by the sum is the last one.
enum BisectMap : int { kAlphaEntmax, kNormmax, kBudget, kAlphaEntmaxRaw, kBisectMaps };

// Alpha or budget of the rows: values[row·stride] in the compute type, or `value` if there are none.
struct BisectParameter {
  const void* values;
  int64_t stride;
  double value;
};

struct BisectKernels {
  // p of rows [begin, end). scratch: bisect_scratch_bytes(n) bytes, separate for each thread.
  using Forward = void (*)(int map, const void* x, const BisectParameter& parameter, void* p, int64_t n, int64_t begin,
                           int64_t end, void* scratch);
  // dx from grad and p, and, unless it is null, the gradient of the parameter of each row, in the compute type.
  using Backward = void (*)(int map, const void* grad, const void* p, const BisectParameter& parameter, void* dx,
                            void* of_parameter, int64_t n, int64_t begin, int64_t end);
  Forward forward[kDTypes];
  Backward backward[kDTypes];
};

// Space for a row in the compute type, with padding.
inline size_t bisect_scratch_bytes(int64_t n) { return size_t(n + 64) * sizeof(double); }

DECLARE_KERNELS(BisectKernels, bisect)

}  // namespace automl_ext
