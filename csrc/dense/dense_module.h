#pragma once
#include <pybind11/pybind11.h>

namespace automl_ext {
// Defines dense_product, gru_gates and gru_gates_backward.
void bind_dense(pybind11::module_& m);
}  // namespace automl_ext
