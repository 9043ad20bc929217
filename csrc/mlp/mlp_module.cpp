// Python bindings of mlp and gru_cell that call the dispatcher. torch.ops would first convert all arguments to a list of
// untyped values, which takes longer than a small network.
#include "mlp_module.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/utils/pybind.h>

#include <optional>
#include <vector>

namespace py = pybind11;

namespace automl_ext {
namespace {

template <class Signature>
auto find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

at::Tensor mlp(const at::Tensor& x, const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
               int64_t activation, bool activate_last, bool stacked_x) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, at::TensorList, at::TensorList, int64_t, bool, bool)>("automl_ext::mlp");
  return op.call(x, weights, biases, activation, activate_last, stacked_x);
}

at::Tensor gru_cell(const at::Tensor& x, const at::Tensor& h, const at::Tensor& w_ih, const at::Tensor& w_hh,
                    const std::optional<at::Tensor>& b_ih, const std::optional<at::Tensor>& b_hh) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                         const std::optional<at::Tensor>&, const std::optional<at::Tensor>&)>("automl_ext::gru_cell");
  return op.call(x, h, w_ih, w_hh, b_ih, b_hh);
}

}  // namespace

void bind_mlp(py::module_& m) {
  m.def("mlp", &mlp, py::arg("x"), py::arg("weights"), py::arg("biases"), py::arg("activation"),
        py::arg("activate_last").noconvert(), py::arg("stacked_x").noconvert(),
        py::call_guard<py::gil_scoped_release>());
  m.def("gru_cell", &gru_cell, py::call_guard<py::gil_scoped_release>());
}

}  // namespace automl_ext
