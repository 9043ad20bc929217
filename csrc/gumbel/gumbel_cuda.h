// Gumbel sampling on CUDA, over the rows of contiguous [count, n], or [count / inner, n, inner].
#pragma once
#include <cstdint>

#include "../common/columns.h"
#include "../common/dtype.h"

namespace automl_ext {

// Like GumbelRows, but the seeds and temperatures are in device memory and only kernels read them. Group i has the seed
// seeds[i * seed_step] and the temperature taus[i * tau_step]; a step of 0 means that all groups share one value.
struct GumbelCudaRows {
  int64_t count, n, rows_per_group;
  const int64_t* seeds;  // not read by the backward pass
  int64_t seed_step;
  const void* taus;  // values of tau_dtype; null: all groups have the temperature tau
  DType tau_dtype;
  int64_t tau_step;
  double tau;
  int64_t inner;  // more than 1: rows along another dim than the last, within gumbel_cuda_columns

  int64_t groups() const { return count / rows_per_group; }
};

// Computes the non-null outputs: softmax or entmax-1.5 of (x + noise)/τ, one_hot of argmax(x + noise), and the argmax.
// one_hot requires soft. workspace: gumbel_workspace bytes, aligned as results of torch; 0 for rows that fit shared memory.
int64_t gumbel_workspace(DType dtype, const GumbelCudaRows& rows, void* soft);
void launch_gumbel(bool entmax, DType dtype, const GumbelCudaRows& rows, const void* x, void* soft, void* one_hot,
                   int64_t* index, void* workspace, void* stream);

// Computes dx. If dtau is not null, also computes dtau, one value of type tau_dtype per temperature, with the workspace
// partials of gumbel_tau_partials(rows) elements.
void launch_gumbel_backward(bool entmax, DType dtype, const GumbelCudaRows& rows, const void* grad, const void* y,
                            void* dx, double* partials, void* dtau, void* stream);
int64_t gumbel_tau_partials(const GumbelCudaRows& rows);

}  // namespace automl_ext
