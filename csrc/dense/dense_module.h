#pragma once
#include <pybind11/pybind11.h>

namespace automl_ext {
void bind_dense(pybind11::module_& m);  // dense_product, gru_gates, gru_gates_backward
}
