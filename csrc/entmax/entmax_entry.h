// The device-independent part of the entry functions of entmax-1.5 and sparsemax: checks, rows, results.
#pragma once
#include "../common/tensors.h"

namespace automl_ext {

// Calls run(dtype, rows, p). columns(dtype) are those that the kernel reads.
template <class Run>
Tensor entmax_forward(const char* op, const Tensor& x, int64_t dim, const Run& run, ColumnsOf columns = no_columns) {
  const DType dtype = dtype_of(x, op, "x");
  const Rows rows(x, dim, columns(dtype));
  const Tensor p = rows.results();
  if (rows.count) run(dtype, rows, p.mutable_data_ptr());
  return from_rows(p, x, dim);
}

// Calls run(dtype, rows of grad, rows of p, dx).
template <class Run>
Tensor entmax_backward(const char* op, const Tensor& grad, const Tensor& p, int64_t dim, const Run& run,
                       ColumnsOf columns = no_columns) {
  const DType dtype = dtype_of(p, op, "p");
  check_like(op, "grad", grad, p);
  const Rows g(grad, dim, columns(dtype)), y(p, dim, columns(dtype));
  const Tensor dx = y.results();
  if (y.count) run(dtype, g, y, dx.mutable_data_ptr());
  return from_rows(dx, p, dim);
}

}  // namespace automl_ext
