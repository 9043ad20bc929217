// What Python sees of the replay. Arrays are NumPy's; each is checked here, so that nothing reaches past its end.
#include "replay_module.h"

#include <pybind11/numpy.h>

#include <string>

#include "sum_tree.h"
#include "windows.h"

namespace py = pybind11;

namespace automl_ext {
namespace {

// 1-dimensional, of this very dtype; copied only where it is strided.
template <class T>
py::array_t<T, py::array::c_style> array_of(const py::object& given, const char* where, const char* name) {
  const std::string prefix = std::string(where) + ": " + name + ": expected a 1-dimensional " +
                             std::string(py::str(py::dtype::of<T>())) + " array, got ";
  if (!py::isinstance<py::array>(given)) {
    throw py::value_error(prefix + std::string(py::str(py::type::of(given).attr("__name__"))));
  }
  const auto array = py::reinterpret_borrow<py::array>(given);
  if (array.ndim() != 1 || !array.dtype().equal(py::dtype::of<T>())) {
    throw py::value_error(prefix + std::string(py::str(array.dtype())) + " of shape " +
                          std::string(py::str(array.attr("shape"))));
  }
  const auto result = py::array_t<T, py::array::c_style>::ensure(array);
  if (!result) throw py::error_already_set();
  return result;
}

void check_length(int64_t length, int64_t expected, const char* where, const char* name, const char* like) {
  if (length == expected) return;
  throw py::value_error(std::string(where) + ": " + name + ": expected as many as " + like + " (" +
                        std::to_string(expected) + "), got " + std::to_string(length));
}

void set(SumTree& tree, const py::object& indices, const py::object& priorities) {
  const auto i = array_of<int64_t>(indices, "SumTree", "indices");
  const auto p = array_of<double>(priorities, "SumTree", "priorities");
  check_length(p.size(), i.size(), "SumTree", "priorities", "indices");
  tree.set(i.data(), p.data(), i.size());
}

py::array_t<double> get(const SumTree& tree, const py::object& indices) {
  const auto i = array_of<int64_t>(indices, "SumTree", "indices");
  py::array_t<double> out(i.size());
  tree.get(i.data(), i.size(), out.mutable_data());
  return out;
}

py::tuple sample(const SumTree& tree, const py::object& uniforms) {
  const auto u = array_of<double>(uniforms, "SumTree", "uniforms");
  py::array_t<int64_t> indices(u.size());
  py::array_t<double> priorities(u.size());
  tree.sample(u.data(), u.size(), indices.mutable_data(), priorities.mutable_data());
  return py::make_tuple(indices, priorities);
}

py::array_t<double> state(const SumTree& tree) { return py::array_t<double>(tree.capacity(), tree.state()); }

void load(SumTree& tree, const py::object& priorities) {
  const auto p = array_of<double>(priorities, "SumTree", "priorities");
  check_length(p.size(), tree.capacity(), "SumTree", "priorities", "the capacity");
  tree.load(p.data());
}

py::tuple windows(const py::object& rows, const py::object& rewards, const py::object& flags, const py::object& finals,
                  int64_t slots, int64_t n_step, double gamma) {
  const char* where = "n_step_windows";
  const auto starts = array_of<int64_t>(rows, where, "rows");
  const auto r = array_of<float>(rewards, where, "rewards");
  const auto f = array_of<uint8_t>(flags, where, "flags");
  const auto apart = array_of<int32_t>(finals, where, "finals");
  check_length(f.size(), r.size(), where, "flags", "rewards");
  check_length(apart.size(), r.size(), where, "finals", "rewards");
  if (slots < 1 || r.size() % slots) throw py::value_error("n_step_windows: slots: expected a divisor of the rows");
  if (n_step < 1) throw py::value_error("n_step_windows: n_step: expected at least 1");
  const int64_t n = starts.size();
  for (int64_t i = 0; i < n; ++i) {
    if (starts.data()[i] < 0 || starts.data()[i] >= r.size()) {
      throw py::index_error("n_step_windows: rows: expected 0 to " + std::to_string(r.size() - 1) + ", got " +
                            std::to_string(starts.data()[i]));
    }
  }
  py::array_t<float> returns(n), discounts(n);
  py::array_t<bool> terminated(n);
  py::array_t<int64_t> next_rows(n), next_finals(n);
  n_step_windows({r.data(), f.data(), apart.data(), slots}, starts.data(), n, n_step, gamma,
                 {returns.mutable_data(), discounts.mutable_data(), terminated.mutable_data(),
                  next_rows.mutable_data(), next_finals.mutable_data()});
  return py::make_tuple(returns, discounts, terminated, next_rows, next_finals);
}

}  // namespace

void bind_replay(py::module_& m) {
  py::class_<SumTree>(m, "SumTree")
      .def(py::init<int64_t>(), py::arg("capacity"))
      .def_property_readonly("capacity", &SumTree::capacity)
      .def_property_readonly("total", &SumTree::total)
      .def_property_readonly("limit", &SumTree::limit)
      .def("set", &set, py::arg("indices"), py::arg("priorities"))
      .def("get", &get, py::arg("indices"))
      .def("sample", &sample, py::arg("uniforms"))
      .def("state", &state)
      .def("load", &load, py::arg("priorities"));
  m.def("n_step_windows", &windows, py::arg("rows"), py::arg("rewards"), py::arg("flags"), py::arg("finals"),
        py::arg("slots"), py::arg("n_step"), py::arg("gamma"));
}

}  // namespace automl_ext
