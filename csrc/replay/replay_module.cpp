// Python bindings of the replay buffer's parts. Arguments are NumPy arrays or torch tensors. All are checked here, so
// that memory is never accessed out of bounds.
#include "replay_module.h"

#include <ATen/ops/empty.h>
#include <pybind11/numpy.h>
#include <torch/csrc/utils/pybind.h>

#include <string>
#include <vector>

#include "gather.h"
#include "sum_tree.h"
#include "windows.h"

namespace py = pybind11;

namespace automl_ext {
namespace {

[[noreturn]] void raise_wrong_array(const py::object& given, const py::object& dtype, const char* where,
                                    const char* name) {
  std::string got = py::str(py::type::of(given).attr("__name__"));
  if (py::isinstance<py::array>(given)) {
    got = std::string(py::str(given.attr("dtype"))) + " of shape " + std::string(py::str(given.attr("shape")));
  }
  throw py::value_error(std::string(where) + ": " + name + ": expected a 1-dimensional " + std::string(py::str(dtype)) +
                        " array, got " + got);
}

// A contiguous 1-dimensional array of exactly this dtype; copied only if it is strided.
template <class T>
py::array_t<T, py::array::c_style> array_of(const py::object& given, const char* where, const char* name) {
  using Array = py::array_t<T, py::array::c_style>;
  if (!py::isinstance<py::array_t<T>>(given) || py::reinterpret_borrow<py::array>(given).ndim() != 1) {
    raise_wrong_array(given, py::dtype::of<T>(), where, name);
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

Rings rings_of(const py::array_t<uint8_t>& steps, int64_t slots, const char* where) {
  if (!steps.size() || steps.size() % sizeof(Step) || reinterpret_cast<uintptr_t>(steps.data()) % alignof(Step)) {
    throw py::value_error(std::string(where) + ": steps: expected the bytes of whole steps, aligned to 8");
  }
  const int64_t count = steps.size() / int64_t(sizeof(Step));
  if (slots < 1 || count % slots) {
    throw py::value_error(std::string(where) + ": slots: expected a positive divisor of the number of steps");
  }
  return {reinterpret_cast<const Step*>(steps.data()), count, slots};
}

py::array_t<int64_t> rows_held(const py::object& indices, const py::object& steps) {
  const auto ids = array_of<int64_t>(indices, "held_rows", "indices");
  const auto bytes = array_of<uint8_t>(steps, "held_rows", "steps");
  const Rings rings = rings_of(bytes, 1, "held_rows");
  py::array_t<int64_t> rows(ids.size());
  held_rows(rings, ids.data(), ids.size(), rows.mutable_data());
  return rows;
}

constexpr const char* kGather = "gather_windows";

// The rows of a contiguous CPU tensor with `count` rows (-1: any number).
StoredRows rows_of(const at::Tensor& x, int64_t count, const char* name) {
  if (!x.device().is_cpu() || !x.is_contiguous() || x.dim() < 1 || (count >= 0 && x.size(0) != count)) {
    throw py::value_error(std::string(kGather) + ": " + name +
                          ": expected a contiguous CPU tensor with one row per step");
  }
  const int64_t size = x.size(0) ? x.numel() / x.size(0) * int64_t(x.element_size()) : 0;
  return {static_cast<const char*>(x.const_data_ptr()), size};
}

at::Tensor empty_rows(const at::Tensor& like, int64_t n) {
  std::vector<int64_t> shape = like.sizes().vec();
  shape[0] = n;
  return at::empty(shape, like.options());
}

// n-step windows that start at `rows`, with their observations and actions: the fields of a Batch without its weights.
// apart: final observations of episodes, which are stored separately from `observations`.
py::tuple gather_windows(const py::object& rows, const py::object& steps, int64_t slots, int64_t n_step, double gamma,
                         const at::Tensor& observations, const at::Tensor& actions, const at::Tensor& apart) {
  const std::string where = std::string(kGather) + ": ";
  const auto starts = array_of<int64_t>(rows, kGather, "rows");
  const auto bytes = array_of<uint8_t>(steps, kGather, "steps");
  const Rings rings = rings_of(bytes, slots, kGather);
  if (n_step < 1) throw py::value_error(where + "n_step: expected at least 1");
  const int64_t n = starts.size();
  for (int64_t i = 0; i < n; ++i) {
    if (starts.data()[i] < 0 || starts.data()[i] >= rings.count) {
      throw py::index_error(where + "rows: expected 0 to " + std::to_string(rings.count - 1) + ", got " +
                            std::to_string(starts.data()[i]));
    }
  }
  const StoredRows all_observations = rows_of(observations, rings.count, "observations");
  const StoredRows all_actions = rows_of(actions, rings.count, "actions");
  const StoredRows finals = rows_of(apart, -1, "apart");
  if (apart.size(0) && finals.size != all_observations.size) {
    throw py::value_error(where + "apart: expected rows of the same size as those of observations");
  }

  const auto floats = at::TensorOptions().dtype(at::kFloat);
  at::Tensor returns = at::empty({n}, floats), discounts = at::empty({n}, floats);
  at::Tensor terminated = at::empty({n}, floats.dtype(at::kBool)), indices = at::empty({n}, floats.dtype(at::kLong));
  at::Tensor first = empty_rows(observations, n), next = empty_rows(observations, n), acts = empty_rows(actions, n);
  std::vector<Next> places(n);
  prefetch_windows(rings, starts.data(), n, n_step, all_observations, all_actions);
  n_step_windows(rings, starts.data(), n, n_step, gamma,
                 {returns.mutable_data_ptr<float>(), discounts.mutable_data_ptr<float>(),
                  terminated.mutable_data_ptr<bool>(), indices.mutable_data_ptr<int64_t>(), places.data()});
  for (const Next& place : places) {
    if (place.final >= apart.size(0)) throw py::index_error(where + "apart: fewer rows than the steps refer to");
  }
  copy_rows(all_observations, starts.data(), n, first.mutable_data_ptr());
  copy_next(all_observations, finals, places.data(), n, next.mutable_data_ptr());
  copy_rows(all_actions, starts.data(), n, acts.mutable_data_ptr());
  return py::make_tuple(first, acts, returns, next, discounts, terminated, indices);
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
  m.def("held_rows", &rows_held, py::arg("indices"), py::arg("steps"));
  m.def("gather_windows", &gather_windows, py::arg("rows"), py::arg("steps"), py::arg("slots"), py::arg("n_step"),
        py::arg("gamma"), py::arg("observations"), py::arg("actions"), py::arg("apart"));
}

}  // namespace automl_ext
