// Python bindings of dense layers and GRU gates. All matrices must be float32 on the CPU. Shapes and strides are
// checked here, so that the kernels never access memory out of bounds.
#include "dense_module.h"

#include <torch/csrc/utils/pybind.h>

#include <optional>

#include "../common/tensors.h"
#include "dense.h"

namespace py = pybind11;

namespace automl_ext {
namespace {

// Checks for a float32 CPU matrix of this shape; −1 means any number of rows or columns.
const at::Tensor& check_matrix(const char* where, const char* name, const at::Tensor& x, int64_t rows,
                               int64_t columns) {
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat && x.device().is_cpu(), where, ": ", name,
                   ": expected a float32 tensor on the CPU, got ", x.scalar_type(), " on ", x.device());
  TORCH_CHECK_VALUE(x.dim() == 2 && (rows < 0 || x.size(0) == rows) && (columns < 0 || x.size(1) == columns), where,
                    ": ", name, ": expected shape [", rows < 0 ? "N" : std::to_string(rows), ", ",
                    columns < 0 ? "n" : std::to_string(columns), "], got ", x.sizes());
  return x;
}
// Also checks that rows are contiguous, as the kernels require.
const at::Tensor& check_rows(const char* where, const char* name, const at::Tensor& x, int64_t rows, int64_t columns) {
  check_matrix(where, name, x, rows, columns);
  TORCH_CHECK_VALUE(x.stride(1) == 1 || x.size(1) <= 1, where, ": ", name, ": expected contiguous rows, got strides ",
                    x.strides());
  return x;
}

constexpr const char* kProduct = "dense_product";

at::Tensor dense_product(const at::Tensor& a, const at::Tensor& b, const std::optional<at::Tensor>& bias,
                         const std::optional<at::Tensor>& add, const std::optional<at::Tensor>& elu_output, bool elu) {
  check_matrix(kProduct, "a", a, -1, -1);
  check_matrix(kProduct, "b", b, a.size(1), -1);
  const int64_t rows = a.size(0), inner = a.size(1), columns = b.size(1);
  const at::Tensor c = at::empty({rows, columns}, a.options());
  DenseProduct p = {};
  p.a = a.const_data_ptr<float>(), p.b = b.const_data_ptr<float>(), p.c = c.mutable_data_ptr<float>();
  p.rows = rows, p.inner = inner, p.columns = columns, p.elu = elu;
  p.a_row = a.stride(0), p.a_inner = a.stride(1), p.b_inner = b.stride(0), p.b_column = b.stride(1), p.c_row = columns;
  if (bias) {
    TORCH_CHECK_TYPE(bias->scalar_type() == at::kFloat && bias->device().is_cpu(), kProduct,
                     ": bias: expected a float32 tensor on the CPU");
    TORCH_CHECK_VALUE(bias->dim() == 1 && bias->size(0) == columns && bias->is_contiguous(), kProduct,
                      ": bias: expected ", columns, " contiguous numbers, got shape ", bias->sizes());
    p.bias = bias->const_data_ptr<float>();
  }
  if (add) {
    p.add = check_rows(kProduct, "add", *add, rows, columns).const_data_ptr<float>(), p.add_row = add->stride(0);
  }
  if (elu_output) {
    p.elu_output = check_rows(kProduct, "elu_output", *elu_output, rows, columns).const_data_ptr<float>();
    p.elu_output_row = elu_output->stride(0);
  }
  const DenseKernels& kernel = dense_kernels();
  const int64_t size = kernel.packed_size(p);
  const Scratch packed(size * sizeof(float));
  float* at = size ? static_cast<float*>(packed.get()) : nullptr;
  if (size) kernel.pack(p, at);
  parallel_rows(rows, inner * columns, [&](int64_t begin, int64_t end) { kernel.multiply(p, at, begin, end); });
  return c;
}

py::tuple gru_gates(const at::Tensor& input_gates, const at::Tensor& hidden_gates, const at::Tensor& state,
                    const at::Tensor& next) {
  constexpr const char* where = "gru_gates";
  check_rows(where, "state", state, -1, -1);
  const int64_t rows = state.size(0), n = state.size(1);
  check_rows(where, "input_gates", input_gates, rows, 3 * n);
  check_rows(where, "hidden_gates", hidden_gates, rows, 3 * n);
  check_rows(where, "next", next, rows, n);
  const at::Tensor candidate = at::empty({rows, n}, state.options());
  const GruGates gates = {input_gates.const_data_ptr<float>(),
                          state.const_data_ptr<float>(),
                          hidden_gates.mutable_data_ptr<float>(),
                          candidate.mutable_data_ptr<float>(),
                          next.mutable_data_ptr<float>(),
                          rows,
                          n,
                          input_gates.stride(0),
                          hidden_gates.stride(0),
                          state.stride(0),
                          next.stride(0)};
  parallel_rows(rows, 3 * n, [&](int64_t begin, int64_t end) { dense_kernels().gru_gates(gates, begin, end); });
  return py::make_tuple(hidden_gates, candidate);
}

py::tuple gru_gates_backward(const at::Tensor& grad_next, const at::Tensor& gates, const at::Tensor& candidate,
                             const at::Tensor& state) {
  constexpr const char* where = "gru_gates_backward";
  check_rows(where, "grad_next", grad_next, -1, -1);
  const int64_t rows = grad_next.size(0), n = grad_next.size(1);
  check_rows(where, "gates", gates, rows, 3 * n);
  check_rows(where, "state", state, rows, n);
  check_rows(where, "candidate", candidate, rows, n);
  TORCH_CHECK_VALUE(candidate.is_contiguous(), where, ": candidate: expected a contiguous tensor, got strides ",
                    candidate.strides());
  const at::Tensor grad_gates = at::empty({rows, 4 * n}, state.options());
  const at::Tensor grad_state = at::empty({rows, n}, state.options());
  const GruGatesBackward pass = {grad_next.const_data_ptr<float>(),
                                 gates.const_data_ptr<float>(),
                                 candidate.const_data_ptr<float>(),
                                 state.const_data_ptr<float>(),
                                 grad_gates.mutable_data_ptr<float>(),
                                 grad_state.mutable_data_ptr<float>(),
                                 rows,
                                 n,
                                 grad_next.stride(0),
                                 gates.stride(0),
                                 state.stride(0)};
  parallel_rows(rows, 3 * n, [&](int64_t begin, int64_t end) { dense_kernels().gru_gates_backward(pass, begin, end); });
  return py::make_tuple(grad_gates, grad_state);
}

}  // namespace

void bind_dense(py::module_& m) {
  m.def("dense_product", &dense_product, py::arg("a"), py::arg("b"), py::arg("bias") = py::none(),
        py::arg("add") = py::none(), py::arg("elu_output") = py::none(), py::arg("elu") = false);
  m.def("gru_gates", &gru_gates, py::arg("input_gates"), py::arg("hidden_gates"), py::arg("state"), py::arg("next"));
  m.def("gru_gates_backward", &gru_gates_backward, py::arg("grad_next"), py::arg("gates"), py::arg("candidate"),
        py::arg("state"));
}

}  // namespace automl_ext
