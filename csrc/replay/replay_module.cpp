// What Python sees of the replay. Arrays are NumPy's; each is checked here, so that nothing reaches past its end.
#include "replay_module.h"

#include <pybind11/numpy.h>

#include <string>

#include "sum_tree.h"
#include "windows.h"

namespace py = pybind11;

namespace automl_ext {
namespace {

[[noreturn]] void raise_unlike(const py::object& given, const py::object& dtype, const char* where, const char* name) {
  std::string got = py::str(py::type::of(given).attr("__name__"));
  if (py::isinstance<py::array>(given)) {
    got = std::string(py::str(given.attr("dtype"))) + " of shape " + std::string(py::str(given.attr("shape")));
  }
  throw py::value_error(std::string(where) + ": " + name + ": expected a 1-dimensional " +
                        std::string(py::str(dtype)) + " array, got " + got);
}

// 1-dimensional, of this very dtype; copied only where it is strided.
template <class T>
py::array_t<T, py::array::c_style> array_of(const py::object& given, const char* where, const char* name) {
  using Array = py::array_t<T, py::array::c_style>;
  if (!py::isinstance<py::array_t<T>>(given) || py::reinterpret_borrow<py::array>(given).ndim() != 1) {
    raise_unlike(given, py::dtype::of<T>(), where, name);
  }
  Array result = Array::ensure(given);
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

py::tuple windows(const py::object& rows, const py::object& steps, int64_t slots, int64_t n_step, double gamma) {
  const char* where = "n_step_windows";
  const auto starts = array_of<int64_t>(rows, where, "rows");
  const auto bytes = array_of<uint8_t>(steps, where, "steps");
  if (bytes.size() % sizeof(Step) || reinterpret_cast<uintptr_t>(bytes.data()) % alignof(Step)) {
    throw py::value_error("n_step_windows: steps: expected the aligned bytes of steps");
  }
  const auto* all = reinterpret_cast<const Step*>(bytes.data());
  const int64_t count = bytes.size() / int64_t(sizeof(Step));
  if (slots < 1 || count % slots) throw py::value_error("n_step_windows: slots: expected a divisor of the steps");
  if (n_step < 1) throw py::value_error("n_step_windows: n_step: expected at least 1");
  const int64_t n = starts.size();
  for (int64_t i = 0; i < n; ++i) {
    if (starts.data()[i] < 0 || starts.data()[i] >= count) {
      throw py::index_error("n_step_windows: rows: expected 0 to " + std::to_string(count - 1) + ", got " +
                            std::to_string(starts.data()[i]));
    }
  }
  py::array_t<float> returns(n), discounts(n);
  py::array_t<bool> terminated(n);
  py::array_t<int64_t> next_rows(n), finals(n), indices(n);
  n_step_windows(all, slots, starts.data(), n, n_step, gamma,
                 {returns.mutable_data(), discounts.mutable_data(), terminated.mutable_data(),
                  next_rows.mutable_data(), finals.mutable_data(), indices.mutable_data()});
  return py::make_tuple(returns, discounts, terminated, next_rows, finals, indices);
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
  m.def("n_step_windows", &windows, py::arg("rows"), py::arg("steps"), py::arg("slots"), py::arg("n_step"),
        py::arg("gamma"));
}

}  // namespace automl_ext
