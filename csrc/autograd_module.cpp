// The Python module of the autograd library, which is built for one minor version of torch: importing it registers the
// gradients. It also has short calls of some ops: torch.ops would first convert all arguments to a list of untyped values,
// which takes longer than a small op. Limited Python API, so that one binary serves all versions of Python.
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030A0000
#endif
#include <Python.h>

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/randint.h>
#include <c10/util/MaybeOwned.h>
#include <torch/version.h>

#include <exception>
#include <limits>
#include <optional>
#include <stdexcept>
#include <vector>

#include "common/autograd.h"

// Of libtorch_python, whose headers need the complete Python API.
extern PyObject *THPVariableClass, *THPGeneratorClass;
PyObject* THPVariable_Wrap(const at::TensorBase& x);
namespace torch {
void translate_exception_to_python(const std::exception_ptr& error);
}

namespace automl_ext {
namespace {

// The start of torch's THPVariable. connect() checks it.
struct PythonTensor {
  PyObject_HEAD at::Tensor tensor;
};

// The start of torch's THPGenerator.
struct PythonGenerator {
  PyObject_HEAD at::Generator generator;
};

struct PythonError {};  // Python's error is set

[[noreturn]] void wrong(const char* text) {
  PyErr_SetString(PyExc_TypeError, text);
  throw PythonError();
}

const at::Tensor& tensor(PyObject* x) {
  const int is = PyObject_IsInstance(x, THPVariableClass);
  if (is < 0) throw PythonError();
  if (!is) wrong("expected a tensor");
  return reinterpret_cast<PythonTensor*>(x)->tensor;
}

std::optional<at::Tensor> optional(PyObject* x) {
  return x == Py_None ? std::nullopt : std::optional<at::Tensor>(tensor(x));
}

c10::SmallVector<at::Tensor, 4> tensors(PyObject* sequence) {
  const Py_ssize_t n = PySequence_Size(sequence);
  if (n < 0) throw PythonError();
  c10::SmallVector<at::Tensor, 4> result;
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* const item = PySequence_GetItem(sequence, i);
    if (!item) throw PythonError();
    try {
      result.push_back(tensor(item));
    } catch (...) {
      Py_DecRef(item);
      throw;
    }
    Py_DecRef(item);
  }
  return result;
}

bool flag(PyObject* x) {
  if (x != Py_True && x != Py_False) wrong("expected a bool");
  return x == Py_True;
}

int64_t integer(PyObject* x) {
  const int64_t value = PyLong_AsLongLong(x);
  if (value == -1 && PyErr_Occurred()) throw PythonError();
  return value;
}

double number(PyObject* x) {
  const double value = PyFloat_AsDouble(x);
  if (value == -1 && PyErr_Occurred()) throw PythonError();
  return value;
}

std::optional<at::Generator> optional_generator(PyObject* x) {
  if (x == Py_None) return std::nullopt;
  const int is = PyObject_IsInstance(x, THPGeneratorClass);
  if (is < 0) throw PythonError();
  if (!is) wrong("expected a torch.Generator");
  return reinterpret_cast<PythonGenerator*>(x)->generator;
}

class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { PyEval_RestoreThread(state_); }

 private:
  PyThreadState* state_;
};

// Calls body for `count` arguments, and turns its exceptions into Python's.
template <class Body>
PyObject* call(Py_ssize_t given, Py_ssize_t count, const Body& body) {
  try {
    if (given != count) wrong("wrong number of arguments");
    return body();
  } catch (const PythonError&) {
  } catch (const std::exception&) {
    torch::translate_exception_to_python(std::current_exception());
  }
  return nullptr;
}

using TensorRef = const at::Tensor&;
using Optional = const std::optional<at::Tensor>&;

// Calls the op without the interpreter's lock.
template <class Op, class... Args>
auto call_op(const Op& op, const Args&... args) {
  const WithoutGil guard;
  return op.call(args...);
}

template <class Signature>
auto typed_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

template <class... T>
PyObject* wrapped(const std::tuple<T...>& all) {
  PyObject* const result = PyTuple_New(sizeof...(T));
  if (!result) throw PythonError();
  Py_ssize_t i = 0;
  std::apply([&](const T&... each) { (PyTuple_SetItem(result, i++, THPVariable_Wrap(each)), ...); }, all);
  return result;
}

PyObject* mlp(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return call(count, 6, [&] {
    static const auto op =
        typed_op<at::Tensor(TensorRef, at::TensorList, at::TensorList, int64_t, bool, bool)>("automl_ext::mlp");
    const auto weights = tensors(args[1]), biases = tensors(args[2]);
    return THPVariable_Wrap(
        call_op(op, tensor(args[0]), weights, biases, integer(args[3]), flag(args[4]), flag(args[5])));
  });
}

PyObject* gru_cell(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return call(count, 6, [&] {
    static const auto op =
        typed_op<at::Tensor(TensorRef, TensorRef, TensorRef, TensorRef, Optional, Optional)>("automl_ext::gru_cell");
    const auto b_ih = optional(args[4]), b_hh = optional(args[5]);
    return THPVariable_Wrap(
        call_op(op, tensor(args[0]), tensor(args[1]), tensor(args[2]), tensor(args[3]), b_ih, b_hh));
  });
}

PyObject* categorical_log_probs(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return call(count, 2, [&] {
    static const auto op =
        typed_op<std::tuple<at::Tensor, at::Tensor>(TensorRef, TensorRef)>("automl_ext::categorical_log_probs");
    return wrapped(call_op(op, tensor(args[0]), tensor(args[1])));
  });
}

PyObject* policy_gradient_loss(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return call(count, 12, [&] {
    using Losses = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
    static const auto op =
        typed_op<Losses(TensorRef, TensorRef, TensorRef, TensorRef, TensorRef, Optional, Optional, Optional, double,
                        double, double, double)>("automl_ext::policy_gradient_loss");
    const auto old_log_probs = optional(args[5]), old_values = optional(args[6]), weights = optional(args[7]);
    return wrapped(call_op(op, tensor(args[0]), tensor(args[1]), tensor(args[2]), tensor(args[3]), tensor(args[4]),
                           old_log_probs, old_values, weights, number(args[8]), number(args[9]), number(args[10]),
                           number(args[11])));
  });
}

// gumbel_argmax(logits, generator) draws the seed of the noise from the generator, or from the default one.
PyObject* gumbel_argmax(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return call(count, 2, [&] {
    static const auto op = typed_op<at::Tensor(TensorRef, TensorRef, int64_t)>("automl_ext::gumbel_argmax");
    constexpr auto low = std::numeric_limits<int64_t>::min(), high = std::numeric_limits<int64_t>::max();
    TensorRef logits = tensor(args[0]);
    const auto generator = optional_generator(args[1]);
    at::Tensor index;
    {
      const WithoutGil guard;
      const auto options = at::TensorOptions().dtype(at::kLong).device(logits.device());
      index = op.call(logits, at::randint(low, high, {}, generator, options), -1);
    }
    return THPVariable_Wrap(index);
  });
}

// connect(address of automl_ext_kernel, a tensor, the address of its implementation)
PyObject* connect(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return call(count, 3, [&]() -> PyObject* {
    if (tensor(args[1]).unsafeGetTensorImpl() != PyLong_AsVoidPtr(args[2]))
      throw std::runtime_error("this build of torch keeps tensors in another way");
    autograd::find_kernel = reinterpret_cast<autograd::FindKernel>(PyLong_AsVoidPtr(args[0]));
    Py_IncRef(Py_None);
    return Py_None;
  });
}

template <class Function>
PyCFunction method(Function* function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef methods[] = {{"mlp", method(mlp), METH_FASTCALL, nullptr},
                         {"gru_cell", method(gru_cell), METH_FASTCALL, nullptr},
                         {"categorical_log_probs", method(categorical_log_probs), METH_FASTCALL, nullptr},
                         {"policy_gradient_loss", method(policy_gradient_loss), METH_FASTCALL, nullptr},
                         {"gumbel_argmax", method(gumbel_argmax), METH_FASTCALL, nullptr},
                         {"connect", method(connect), METH_FASTCALL, nullptr},
                         {nullptr, nullptr, 0, nullptr}};
PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_autograd", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace
}  // namespace automl_ext

#define JOINED(a, b) a##b
#define INIT_FUNCTION(name) JOINED(PyInit_, name)
PyMODINIT_FUNC INIT_FUNCTION(TORCH_EXTENSION_NAME)() { return PyModule_Create(&automl_ext::definition); }
