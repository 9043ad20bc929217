// Entmax-1.5 (power 2) and sparsemax (power 1) on CUDA, over contiguous [rows, n], or, within entmax_cuda_columns,
// [rows / inner, n, inner] if inner is not 1.
#pragma once
#include <cstdint>

#include "../common/columns.h"
#include "../common/dtype.h"

namespace automl_ext {

// workspace: entmax_workspace bytes, aligned as results of torch; 0 for rows that fit shared memory.
int64_t entmax_workspace(DType dtype, int64_t rows, int64_t n, int64_t inner = 1);
void launch_entmax(int power, DType dtype, const void* x, void* p, int64_t rows, int64_t n, void* workspace,
                   void* stream, int64_t inner = 1);
void launch_entmax_backward(int power, DType dtype, const void* grad, const void* p, void* dx, int64_t rows, int64_t n,
                            void* stream, int64_t inner = 1);

}  // namespace automl_ext
