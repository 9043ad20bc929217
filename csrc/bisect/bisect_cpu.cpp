// CPU entry functions of alpha-entmax, normmax and budget-sparsemax.

#include "../common/kernel_library.h"
#include "bisect_entry.h"

namespace automl_ext::bisect_cpu {
namespace {

constexpr int64_t kCost = 32;  // an element takes as long as about as many plain ones

Tensor forward(const Tensor& x, double value, const OptionalTensor& parameter, int64_t map, int64_t dim) {
  return bisect_forward(x, value, parameter, map, dim,
                        [&](DType dtype, const Rows& rows, const BisectParameter& of_rows, void* p) {
                          parallel_rows(rows.count, kCost * rows.length, [&](int64_t begin, int64_t end) {
                            const Scratch scratch(bisect_scratch_bytes(rows.length));
                            bisect_kernels().forward[dtype](int(map), rows.data.const_data_ptr(), of_rows, p,
                                                            rows.length, begin, end, scratch.get());
                          });
                        });
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& p, double value, const OptionalTensor& parameter,
                                    int64_t map, int64_t dim, bool needs_parameter) {
  return bisect_backward(
      grad, p, value, parameter, map, dim, needs_parameter,
      [&](DType dtype, const Rows& g, const Rows& y, const BisectParameter& of_rows, void* dx, void* of_parameter) {
        parallel_rows(y.count, kCost / 2 * y.length, [&](int64_t begin, int64_t end) {
          bisect_kernels().backward[dtype](int(map), g.data.const_data_ptr(), y.data.const_data_ptr(), of_rows, dx,
                                           of_parameter, y.length, begin, end);
        });
      });
}

}  // namespace
}  // namespace automl_ext::bisect_cpu

STABLE_TORCH_LIBRARY_FRAGMENT(automl_ext, m) {
  // Alpha-entmax, normmax and budget-sparsemax; map: see csrc/bisect/bisect.h. parameter: alpha or budget, in the shape of x
  // with size 1 at dim, float64 for a float64 x, else float32; without it, value. Returns p in the shape of x.
  m.def("bisect_map(Tensor x, float value, Tensor? parameter, int map, int dim) -> Tensor");
  // The gradient of the parameter is [0] unless needed.
  m.def(
      "_bisect_map_backward(Tensor grad, Tensor p, float value, Tensor? parameter, int map, int dim, "
      "bool needs_parameter) -> (Tensor x, Tensor parameter)");
}

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  using namespace automl_ext;
  using namespace automl_ext::bisect_cpu;
  implement<forward>(m, "bisect_map", true);
  implement<backward>(m, "_bisect_map_backward", true);
}
