// The device-independent part of the entry functions of entmax-1.5 and sparsemax: checks, rows, results.
#pragma once
#include "../common/tensors.h"

namespace automl_ext {

// Calls run(dtype, rows, p).
template <class Run>
at::Tensor entmax_forward(const char* op, const at::Tensor& x, int64_t dim, const Run& run) {
  const DType dtype = dtype_of(x, op, "x");
  const Rows rows(x, dim);
  const at::Tensor p = at::empty(rows.data.sizes(), rows.data.options());
  if (rows.count) run(dtype, rows, p.mutable_data_ptr());
  return from_rows(p, x, dim);
}

// Calls run(dtype, rows of grad, rows of p, dx).
template <class Run>
at::Tensor entmax_backward(const char* op, const at::Tensor& grad, const at::Tensor& p, int64_t dim, const Run& run) {
  const DType dtype = dtype_of(p, op, "p");
  check_like(op, "grad", grad, p);
  const Rows g(grad, dim), y(p, dim);
  const at::Tensor dx = at::empty(y.data.sizes(), y.data.options());
  if (y.count) run(dtype, g, y, dx.mutable_data_ptr());
  return from_rows(dx, p, dim);
}

}  // namespace automl_ext
