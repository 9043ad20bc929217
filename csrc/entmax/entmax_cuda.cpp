// CUDA entry functions of entmax-1.5 and sparsemax.

#include <optional>
#include <tuple>

#include "../common/cuda/device.h"
#include "../common/kernel_library.h"
#include "entmax_cuda.h"
#include "entmax_entry.h"

namespace automl_ext {
namespace {

template <int power>
constexpr const char* kName = power == 2 ? "entmax15" : "sparsemax";

template <int power>
Tensor forward(const Tensor& x, int64_t dim) {
  const CudaCall call(kName<power>, x);
  return entmax_forward(
      kName<power>, x, dim,
      [&](DType dtype, const Rows& rows, void* p) {
        const Workspace workspace(entmax_workspace(dtype, rows.count, rows.length, rows.inner), rows.data);
        launch_entmax(power, dtype, rows.data.const_data_ptr(), p, rows.count, rows.length, workspace.get(),
                      call.stream(), rows.inner);
        call.check();
      },
      entmax_cuda_columns);
}

// The CUDA gradient reads p, so the support is empty.
template <int power>
std::tuple<Tensor, Tensor> trained(const Tensor& x, int64_t dim) {
  return {forward<power>(x, dim), empty({0}, ScalarType::Byte, x)};
}

template <int power>
Tensor backward(const Tensor& grad, const Tensor& p, int64_t dim, const OptionalTensor& /*support*/) {
  const CudaCall call(kName<power>, p);
  return entmax_backward(
      kName<power>, grad, p, dim,
      [&](DType dtype, const Rows& g, const Rows& y, void* dx) {
        launch_entmax_backward(power, dtype, g.data.const_data_ptr(), y.data.const_data_ptr(), dx, y.count, y.length,
                               call.stream(), y.inner);
        call.check();
      },
      entmax_cuda_columns);
}

}  // namespace
}  // namespace automl_ext

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CUDA, m) {
  using namespace automl_ext;
  implement<forward<2>>(m, "entmax15");
  implement<trained<2>>(m, "_entmax15_trained");
  implement<backward<2>>(m, "_entmax15_backward");
  implement<forward<1>>(m, "sparsemax");
  implement<trained<1>>(m, "_sparsemax_trained");
  implement<backward<1>>(m, "_sparsemax_backward");
}
