#pragma once
#include <pybind11/pybind11.h>

namespace automl_ext {
// Defines mlp and gru_cell.
void bind_mlp(pybind11::module_& m);
}  // namespace automl_ext
