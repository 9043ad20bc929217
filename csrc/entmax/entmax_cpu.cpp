// CPU entry functions of entmax-1.5 and sparsemax.
#include <torch/library.h>

#include "../common/kernels.h"
#include "entmax_entry.h"

namespace automl_ext {
namespace {

at::Tensor forward(const at::Tensor& x, int64_t dim, const EntmaxKernels::Forward* table, const char* op) {
  return entmax_forward(op, x, dim, [&](DType dtype, const Rows& rows, void* p) {
    parallel_rows(rows.count, rows.length, [&](int64_t begin, int64_t end) {
      const Scratch scratch(entmax_scratch_bytes(rows.length));
      table[dtype](rows.data.const_data_ptr(), p, rows.length, begin, end, scratch.get());
    });
  });
}

at::Tensor backward(const at::Tensor& grad, const at::Tensor& p, int64_t dim, const EntmaxKernels::Backward* table,
                    const char* op) {
  return entmax_backward(op, grad, p, dim, [&](DType dtype, const Rows& g, const Rows& y, void* dx) {
    parallel_rows(y.count, y.length, [&](int64_t begin, int64_t end) {
      table[dtype](g.data.const_data_ptr(), y.data.const_data_ptr(), dx, y.length, begin, end);
    });
  });
}

at::Tensor entmax15(const at::Tensor& x, int64_t dim) { return forward(x, dim, kernels().entmax.entmax15, "entmax15"); }
at::Tensor sparsemax(const at::Tensor& x, int64_t dim) {
  return forward(x, dim, kernels().entmax.sparsemax, "sparsemax");
}
at::Tensor entmax15_backward(const at::Tensor& grad, const at::Tensor& p, int64_t dim) {
  return backward(grad, p, dim, kernels().entmax.entmax15_backward, "entmax15");
}
at::Tensor sparsemax_backward(const at::Tensor& grad, const at::Tensor& p, int64_t dim) {
  return backward(grad, p, dim, kernels().entmax.sparsemax_backward, "sparsemax");
}

}  // namespace
}  // namespace automl_ext

TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  m.impl("entmax15", TORCH_FN(automl_ext::entmax15));
  m.impl("_entmax15_backward", TORCH_FN(automl_ext::entmax15_backward));
  m.impl("sparsemax", TORCH_FN(automl_ext::sparsemax));
  m.impl("_sparsemax_backward", TORCH_FN(automl_ext::sparsemax_backward));
}
