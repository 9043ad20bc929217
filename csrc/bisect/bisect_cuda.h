// Alpha-entmax, normmax and budget-sparsemax on CUDA, over contiguous [rows, n].
#pragma once
#include "bisect.h"

namespace automl_ext {

void launch_bisect(int map, DType dtype, const void* x, const BisectParameter& parameter, void* p, int64_t rows,
                   int64_t n, void* stream);
// of_parameter: the gradients of the parameters of the rows, or null.
void launch_bisect_backward(int map, DType dtype, const void* grad, const void* p, const BisectParameter& parameter,
                            void* dx, void* of_parameter, int64_t rows, int64_t n, void* stream);

}  // namespace automl_ext
