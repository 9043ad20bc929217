#pragma once
#include <pybind11/pybind11.h>

namespace automl_ext {
// Defines SumTree, held_rows and gather_windows.
void bind_replay(pybind11::module_& m);
}  // namespace automl_ext
