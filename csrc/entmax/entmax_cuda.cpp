// CUDA entry functions of entmax-1.5 and sparsemax.
#include <torch/library.h>

#include <optional>
#include <tuple>

#include "../common/cuda/device.h"
#include "entmax_cuda.h"
#include "entmax_entry.h"

namespace automl_ext {
namespace {

template <int power>
constexpr const char* kName = power == 2 ? "entmax15" : "sparsemax";

template <int power>
at::Tensor forward(const at::Tensor& x, int64_t dim) {
  const CudaCall call(kName<power>, x);
  return entmax_forward(kName<power>, x, dim, [&](DType dtype, const Rows& rows, void* p) {
    launch_entmax(power, dtype, rows.data.const_data_ptr(), p, rows.count, rows.length, call.stream());
    call.check();
  });
}

// The CUDA gradient reads p, so the support is empty.
template <int power>
std::tuple<at::Tensor, at::Tensor> trained(const at::Tensor& x, int64_t dim) {
  return {forward<power>(x, dim), at::empty({0}, x.options().dtype(at::kByte))};
}

template <int power>
at::Tensor backward(const at::Tensor& grad, const at::Tensor& p, int64_t dim,
                    const std::optional<at::Tensor>& /*support*/) {
  const CudaCall call(kName<power>, p);
  return entmax_backward(kName<power>, grad, p, dim, [&](DType dtype, const Rows& g, const Rows& y, void* dx) {
    launch_entmax_backward(power, dtype, g.data.const_data_ptr(), y.data.const_data_ptr(), dx, y.count, y.length,
                           call.stream());
    call.check();
  });
}

}  // namespace
}  // namespace automl_ext

TORCH_LIBRARY_IMPL(automl_ext, CUDA, m) {
  m.impl("entmax15", TORCH_FN(automl_ext::forward<2>));
  m.impl("_entmax15_trained", TORCH_FN(automl_ext::trained<2>));
  m.impl("_entmax15_backward", TORCH_FN(automl_ext::backward<2>));
  m.impl("sparsemax", TORCH_FN(automl_ext::forward<1>));
  m.impl("_sparsemax_trained", TORCH_FN(automl_ext::trained<1>));
  m.impl("_sparsemax_backward", TORCH_FN(automl_ext::backward<1>));
}
