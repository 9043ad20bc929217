// Gumbel sampling on CUDA, over the rows of contiguous [count, n].
#pragma once
#include <cstdint>

#include "../common/dtype.h"

namespace automl_ext {

// As GumbelRows; seeds and temperatures lie on the device, and only kernels read them.
struct GumbelCudaRows {
  int64_t count, n, rows_per_group;
  const int64_t* seeds;  // [groups], or one for all when seed_step is 0; not read by backward
  int64_t seed_step;
  const void* taus;  // alike, of tau_dtype; null: tau
  DType tau_dtype;
  int64_t tau_step;
  double tau;

  int64_t groups() const { return count / rows_per_group; }
};

// softmax or entmax-1.5 of (x + noise)/τ, one_hot of argmax(x + noise), the argmax: what is not null; one_hot wants
// soft as well.
void launch_gumbel(bool entmax, DType dtype, const GumbelCudaRows& rows, const void* x, void* soft, void* one_hot,
                   int64_t* index, void* stream);

// dx, and unless null dtau, of tau_dtype: one for each τ. partials: room for gumbel_tau_partials(rows).
void launch_gumbel_backward(bool entmax, DType dtype, const GumbelCudaRows& rows, const void* grad, const void* y,
                            void* dx, double* partials, void* dtau, void* stream);
int64_t gumbel_tau_partials(const GumbelCudaRows& rows);

}  // namespace automl_ext
