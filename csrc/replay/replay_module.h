#pragma once
#include <pybind11/pybind11.h>

namespace automl_ext {
void bind_replay(pybind11::module_& m);  // SumTree, held_rows, gather_windows
}
