// The extension module: importing it registers the ops with torch. It tells how it was built.
#include <pybind11/pybind11.h>

#include "common/kernels.h"

PYBIND11_MODULE(_C, m) {
  m.def("instruction_set", [] { return automl_ext::kernels().instruction_set; });
  m.def("compiled_instruction_sets", [] {
    pybind11::list names;
    for (const auto& name : pybind11::str(automl_ext::compiled_instruction_sets()).attr("split")(", "))
      names.append(name);
    return names;
  });
}
