// The device-independent part of the entry functions of alpha-entmax, normmax and budget-sparsemax: checks, rows, results.
#pragma once
#include <tuple>

#include "../common/tensors.h"
#include "bisect.h"

namespace automl_ext {

constexpr const char* kBisectOp = "bisect_map";

inline ScalarType bisect_compute_type(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}
// The shape of x with size 1 at dim.
inline std::vector<int64_t> bisect_row_shape(const Tensor& x, int64_t dim) {
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end());
  if (x.dim()) shape[dim < 0 ? dim + x.dim() : dim] = 1;
  return shape;
}

// The parameters in the order of the rows.
struct BisectRowParameters {
  Tensor data;  // keeps the values alive
  BisectParameter of_rows;

  BisectRowParameters(double value, const OptionalTensor& parameter, const Tensor& x, int64_t dim)
      : of_rows{nullptr, 0, value} {
    if (!parameter) return;
    check_device(kBisectOp, "parameter", *parameter, x);
    CHECK_TYPE(parameter->scalar_type() == bisect_compute_type(x), kBisectOp, ": parameter: expected a ",
               bisect_compute_type(x), " tensor, got ", parameter->scalar_type());
    const std::vector<int64_t> shape = bisect_row_shape(x, dim);
    CHECK_VALUE(abi::equal(parameter->sizes(), IntList(shape.data(), shape.size())), kBisectOp,
                ": parameter: expected shape ", IntList(shape.data(), shape.size()), ", got ", parameter->sizes());
    bool single = true;  // expanded from one value
    for (int64_t i = 0; i < parameter->dim(); ++i) single &= parameter->size(i) == 1 || parameter->stride(i) == 0;
    data = single ? *parameter : Rows(*parameter, dim).data;
    of_rows = {data.const_data_ptr(), single ? 0 : 1, value};
  }
};

inline void check_bisect_map(int64_t map) {
  CHECK_VALUE(map >= 0 && map < kBisectMaps, kBisectOp, ": map: expected a value in [0, ", kBisectMaps - 1, "], got ",
              map);
}

// Calls run(dtype, rows, parameters, p).
template <class Run>
Tensor bisect_forward(const Tensor& x, double value, const OptionalTensor& parameter, int64_t map, int64_t dim,
                      const Run& run) {
  const DType dtype = dtype_of(x, kBisectOp, "x");
  check_bisect_map(map);
  const Rows rows(x, dim);
  const BisectRowParameters parameters(value, parameter, x, dim);
  const Tensor p = empty(rows.data.sizes(), rows.data);
  if (rows.count) run(dtype, rows, parameters.of_rows, p.mutable_data_ptr());
  return from_rows(p, x, dim);
}

// Calls run(dtype, rows of grad, rows of p, parameters, dx, gradients of the parameters or null).
template <class Run>
std::tuple<Tensor, Tensor> bisect_backward(const Tensor& grad, const Tensor& p, double value,
                                           const OptionalTensor& parameter, int64_t map, int64_t dim,
                                           bool needs_parameter, const Run& run) {
  const DType dtype = dtype_of(p, kBisectOp, "p");
  check_bisect_map(map);
  check_like(kBisectOp, "grad", grad, p);
  const Rows g(grad, dim), y(p, dim);
  const BisectRowParameters parameters(value, parameter, p, dim);
  const Tensor dx = empty(y.data.sizes(), y.data);
  std::vector<int64_t> shape(y.data.sizes().begin(), y.data.sizes().end());
  shape.back() = 1;
  const ScalarType type = bisect_compute_type(p);
  if (!needs_parameter) {
    if (y.count) run(dtype, g, y, parameters.of_rows, dx.mutable_data_ptr(), static_cast<void*>(nullptr));
    return {from_rows(dx, p, dim), empty({0}, type, p)};
  }
  const Tensor of_parameter = y.count ? empty(IntList(shape.data(), shape.size()), type, p)
                                      : zeros(IntList(shape.data(), shape.size()), type, p);
  if (y.count) run(dtype, g, y, parameters.of_rows, dx.mutable_data_ptr(), of_parameter.mutable_data_ptr());
  return {from_rows(dx, p, dim), from_rows(of_parameter, p, dim)};
}

}  // namespace automl_ext
