// Parts of the entry functions of mlp and gru_cell.
#pragma once
#include "../common/kernel_library.h"

namespace automl_ext {

// Whether the kernels compute with tensors like x. Others go through PyTorch's ops (mlp_composite.cpp).
inline bool has_kernel(const Tensor& x) {
  return x.device().is_cpu() && (x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double);
}

// Calls body(float()) or body(double()).
template <class Body>
void by_type(const Tensor& x, Body body) {
  x.scalar_type() == ScalarType::Double ? body(double()) : body(float());
}

}  // namespace automl_ext
