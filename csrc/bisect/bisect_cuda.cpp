// CUDA entry functions of alpha-entmax, normmax and budget-sparsemax.

#include "bisect_cuda.h"
#include "../common/cuda/device.h"
#include "../common/kernel_library.h"
#include "bisect_entry.h"

namespace automl_ext {
namespace {

Tensor forward(const Tensor& x, double value, const OptionalTensor& parameter, int64_t map, int64_t dim) {
  const CudaCall call(kBisectOp, x);
  return bisect_forward(
      x, value, parameter, map, dim, [&](DType dtype, const Rows& rows, const BisectParameter& of_rows, void* p) {
        launch_bisect(int(map), dtype, rows.data.const_data_ptr(), of_rows, p, rows.count, rows.length, call.stream());
        call.check();
      });
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& p, double value, const OptionalTensor& parameter,
                                    int64_t map, int64_t dim, bool needs_parameter) {
  const CudaCall call(kBisectOp, p);
  return bisect_backward(
      grad, p, value, parameter, map, dim, needs_parameter,
      [&](DType dtype, const Rows& g, const Rows& y, const BisectParameter& of_rows, void* dx, void* of_parameter) {
        launch_bisect_backward(int(map), dtype, g.data.const_data_ptr(), y.data.const_data_ptr(), of_rows, dx,
                               of_parameter, y.count, y.length, call.stream());
        call.check();
      });
}

}  // namespace
}  // namespace automl_ext

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CUDA, m) {
  using namespace automl_ext;
  implement<forward>(m, "bisect_map");
  implement<backward>(m, "_bisect_map_backward");
}
