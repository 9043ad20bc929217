// The Python module of the autograd library, which is built for one minor version of torch: importing it registers the
// gradients. It also has short calls of some ops: torch.ops would first convert all arguments to a list of untyped values,
// which takes longer than a small op. Limited Python API, so that one binary serves all versions of Python.
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030A0000
#endif
#include <Python.h>

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>

#include <exception>
#include <limits>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>

#include "common/autograd.h"
#include "common/older_libstdcxx.h"

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

// An element of a sequence.
struct Item {
  Item(PyObject* sequence, Py_ssize_t i) : object(PySequence_GetItem(sequence, i)) {
    if (!object) throw PythonError();
  }
  Item(const Item&) = delete;
  ~Item() { Py_DecRef(object); }

  PyObject* const object;
};

c10::SmallVector<at::Tensor, 4> tensors(PyObject* sequence) {
  const Py_ssize_t n = PySequence_Size(sequence);
  if (n < 0) throw PythonError();
  c10::SmallVector<at::Tensor, 4> result;
  for (Py_ssize_t i = 0; i < n; ++i) result.push_back(tensor(Item(sequence, i).object));
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

// Turns a Python object into an argument of type T.
template <class T>
decltype(auto) from(PyObject* x) {
  if constexpr (std::is_same_v<T, TensorRef>)
    return tensor(x);
  else if constexpr (std::is_same_v<T, Optional>)
    return optional(x);
  else if constexpr (std::is_same_v<T, at::TensorList>)
    return tensors(x);
  else if constexpr (std::is_same_v<T, double>)
    return number(x);
  else if constexpr (std::is_same_v<T, bool>)
    return flag(x);
  else
    return integer(x);
}

PyObject* to_python(TensorRef x) { return THPVariable_Wrap(x); }

template <class... T>
PyObject* to_python(const std::tuple<T...>& all) {
  PyObject* const result = PyTuple_New(sizeof...(T));
  if (!result) throw PythonError();
  Py_ssize_t i = 0;
  std::apply([&](const T&... each) { (PyTuple_SetItem(result, i++, THPVariable_Wrap(each)), ...); }, all);
  return result;
}

template <class Result, class... A, size_t... I>
PyObject* converted(const c10::TypedOperatorHandle<Result(A...)>& op, PyObject* const* args,
                    std::index_sequence<I...>) {
  const std::tuple<decltype(from<A>(nullptr))...> held{from<A>(args[I])...};  // braces: converted in order
  const Result result = [&] {
    const WithoutGil guard;
    return op.call(std::get<I>(held)...);
  }();
  return to_python(result);
}

template <class Signature>
auto typed_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// The Python function of an op: op(*args), all of them positional.
template <const char* name, class Result, class... A>
PyObject* direct(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return call(count, sizeof...(A), [&] {
    static const auto op = typed_op<Result(A...)>(name);
    return converted(op, args, std::index_sequence_for<A...>());
  });
}

using Tensor = at::Tensor;
using Two = std::tuple<Tensor, Tensor>;
using Three = std::tuple<Tensor, Tensor, Tensor>;
using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;

constexpr char kMlp[] = "automl_ext::mlp", kGru[] = "automl_ext::gru_cell", kEntmax[] = "automl_ext::entmax15",
               kSparsemax[] = "automl_ext::sparsemax", kGumbelSoftmax[] = "automl_ext::gumbel_softmax",
               kGumbelEntmax[] = "automl_ext::gumbel_entmax15", kLogProbs[] = "automl_ext::categorical_log_probs",
               kLoss[] = "automl_ext::policy_gradient_loss", kGae[] = "automl_ext::gae",
               kLambda[] = "automl_ext::lambda_returns", kNSteps[] = "automl_ext::n_step_returns",
               kTargets[] = "automl_ext::td_targets", kProjection[] = "automl_ext::categorical_projection";

// mixed_op(inputs, weights), inputs: a list or tuple of tensors and None. Returns None unless there are as many weights as
// inputs, in the dtype and on the device of all: Python then converts them, or says what is wrong.
PyObject* mixed_op(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return call(count, 2, [&]() -> PyObject* {
    static const auto op = typed_op<Tensor(at::TensorList, TensorRef, at::IntArrayRef)>("automl_ext::mixed_op");
    c10::SmallVector<Tensor, 8> inputs;
    c10::SmallVector<int64_t, 8> positions;
    const Py_ssize_t length = PySequence_Size(args[0]);
    TensorRef weights = tensor(args[1]);
    bool alike = weights.dim() == 1 && weights.size(0) == length;
    for (Py_ssize_t k = 0; k < length; ++k) {
      const Item item(args[0], k);
      if (item.object == Py_None) continue;
      inputs.push_back(tensor(item.object));
      positions.push_back(k);
    }
    for (const Tensor& x : inputs)
      alike = alike && x.scalar_type() == weights.scalar_type() && x.device() == weights.device();
    if (!alike) {
      Py_IncRef(Py_None);
      return Py_None;
    }
    Tensor y;
    {
      const WithoutGil guard;
      y = op.call(inputs, weights, positions);
    }
    return to_python(y);
  });
}

// A seed from the generator, or from the default one: the number that torch.randint(-2^63, 2^63 - 1, ()) draws.
Tensor drawn_seed(const std::optional<at::Generator>& generator, const at::Device& device) {
  constexpr auto low = std::numeric_limits<int64_t>::min(), high = std::numeric_limits<int64_t>::max();
  return at::randint(low, high, {}, generator, at::TensorOptions().dtype(at::kLong).device(device));
}

// gumbel_argmax(logits, generator)
PyObject* gumbel_argmax(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return call(count, 2, [&] {
    static const auto op = typed_op<Tensor(TensorRef, TensorRef, int64_t)>("automl_ext::gumbel_argmax");
    TensorRef logits = tensor(args[0]);
    const auto generator = optional_generator(args[1]);
    Tensor index;
    {
      const WithoutGil guard;
      index = op.call(logits, drawn_seed(generator, logits.device()), -1);
    }
    return THPVariable_Wrap(index);
  });
}

// gumbel_softmax(logits, generator, seed, tau, dim, hard, return_index); seed: an int, or None to draw one. Returns the
// sample, and with return_index the pair of sample and index.
template <const char* name>
PyObject* gumbel(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return call(count, 7, [&] {
    static const auto op = typed_op<Three(TensorRef, TensorRef, double, Optional, int64_t, bool, bool)>(name);
    TensorRef logits = tensor(args[0]);
    const auto generator = optional_generator(args[1]);
    const bool draws = args[2] == Py_None, hard = flag(args[5]), index = flag(args[6]);
    const int64_t given = draws ? 0 : integer(args[2]), dim = integer(args[4]);
    const double tau = number(args[3]);
    Three sampled;
    {
      const WithoutGil guard;
      const Tensor seed = draws ? drawn_seed(generator, logits.device())
                                : at::full({}, given, at::TensorOptions().dtype(at::kLong).device(logits.device()));
      sampled = op.call(logits, seed, tau, std::nullopt, dim, hard, index);
    }
    return index ? to_python(Two(std::get<0>(sampled), std::get<2>(sampled))) : to_python(std::get<0>(sampled));
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

PyMethodDef methods[] = {
    {"mlp", method(direct<kMlp, Tensor, TensorRef, at::TensorList, at::TensorList, int64_t, bool, bool>), METH_FASTCALL,
     nullptr},
    {"gru_cell", method(direct<kGru, Tensor, TensorRef, TensorRef, TensorRef, TensorRef, Optional, Optional>),
     METH_FASTCALL, nullptr},
    {"entmax15", method(direct<kEntmax, Tensor, TensorRef, int64_t>), METH_FASTCALL, nullptr},
    {"sparsemax", method(direct<kSparsemax, Tensor, TensorRef, int64_t>), METH_FASTCALL, nullptr},
    {"categorical_log_probs", method(direct<kLogProbs, Two, TensorRef, TensorRef>), METH_FASTCALL, nullptr},
    {"policy_gradient_loss",
     method(direct<kLoss, Four, TensorRef, TensorRef, TensorRef, TensorRef, TensorRef, Optional, Optional, Optional,
                   double, double, double, double>),
     METH_FASTCALL, nullptr},
    {"gae",
     method(direct<kGae, Two, TensorRef, TensorRef, TensorRef, TensorRef, TensorRef, Optional, double, double, bool>),
     METH_FASTCALL, nullptr},
    {"lambda_returns",
     method(
         direct<kLambda, Tensor, TensorRef, TensorRef, Optional, Optional, Optional, Optional, double, double, bool>),
     METH_FASTCALL, nullptr},
    {"n_step_returns",
     method(direct<kNSteps, Three, TensorRef, Optional, TensorRef, TensorRef, Optional, double, int64_t, bool>),
     METH_FASTCALL, nullptr},
    {"td_targets", method(direct<kTargets, Tensor, TensorRef, TensorRef, TensorRef, Optional, Optional, double>),
     METH_FASTCALL, nullptr},
    {"categorical_projection",
     method(direct<kProjection, Tensor, TensorRef, TensorRef, TensorRef, Optional, double, double, double>),
     METH_FASTCALL, nullptr},
    {"mixed_op", method(mixed_op), METH_FASTCALL, nullptr},
    {"gumbel_softmax", method(gumbel<kGumbelSoftmax>), METH_FASTCALL, nullptr},
    {"gumbel_entmax15", method(gumbel<kGumbelEntmax>), METH_FASTCALL, nullptr},
    {"gumbel_argmax", method(gumbel_argmax), METH_FASTCALL, nullptr},
    {"connect", method(connect), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr}};
PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_autograd", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace
}  // namespace automl_ext

#define JOINED(a, b) a##b
#define INIT_FUNCTION(name) JOINED(PyInit_, name)
PyMODINIT_FUNC INIT_FUNCTION(TORCH_EXTENSION_NAME)() { return PyModule_Create(&automl_ext::definition); }
