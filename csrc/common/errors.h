// Errors of the kernels' library, with the types that Python callers expect: ValueError, IndexError, TypeError. Exceptions of
// torch itself are not part of its stable interface.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

#include "abi.h"

extern "C" {
// Part of Python's stable interface. Null in a program without Python.
__attribute__((weak)) void PyErr_SetString(struct _object* type, const char* text);
extern __attribute__((weak)) struct _object *PyExc_TypeError, *PyExc_ValueError, *PyExc_IndexError;
}

// Where torch returns to Python, it calls set_error() of these classes of pybind11. These declarations are pybind11's:
// exceptions are recognised by the name of their type.
namespace pybind11 {
class __attribute__((visibility("default"))) builtin_exception : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  virtual void set_error() const = 0;
};
class __attribute__((visibility("default"))) type_error : public builtin_exception {
 public:
  using builtin_exception::builtin_exception;
  void set_error() const override { PyErr_SetString(PyExc_TypeError, what()); }
};
class __attribute__((visibility("default"))) value_error : public builtin_exception {
 public:
  using builtin_exception::builtin_exception;
  void set_error() const override { PyErr_SetString(PyExc_ValueError, what()); }
};
class __attribute__((visibility("default"))) index_error : public builtin_exception {
 public:
  using builtin_exception::builtin_exception;
  void set_error() const override { PyErr_SetString(PyExc_IndexError, what()); }
};
}  // namespace pybind11

namespace automl_ext {

template <class Part>
const Part& shown(const Part& part) {
  return part;
}
inline std::string shown(abi::IntList list) {
  std::string text = "[";
  for (const int64_t value : list) text += (text.size() > 1 ? ", " : "") + std::to_string(value);
  return text + "]";
}
inline std::string shown(abi::Device device) {
  const auto name = [&](const char* type) {
    return type + (device.index < 0 ? "" : ":" + std::to_string(device.index));
  };
  if (device.is_cpu()) return "cpu";
  if (device.is_cuda()) return name("cuda");
  if (device.type == aoti_torch_device_type_meta()) return "meta";
  if (device.type == aoti_torch_device_type_mps()) return name("mps");
  if (device.type == aoti_torch_device_type_xpu()) return name("xpu");
  return name("another device");
}

template <class Error, class... Parts>
[[noreturn]] __attribute__((noinline, cold)) void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << shown(parts));
  throw Error(text.str());
}

// Runs the body of an op that Python may call. torch up to 2.13 turns std::invalid_argument into ValueError and
// std::out_of_range into IndexError; torch 2.15 makes RuntimeErrors of them.
template <class Body>
void with_errors_of_python(const Body& body) {
  try {
    body();
  } catch (const std::invalid_argument& error) {
    throw pybind11::value_error(error.what());
  } catch (const std::out_of_range& error) {
    throw pybind11::index_error(error.what());
  }
}

}  // namespace automl_ext

#define CHECK_VALUE(condition, ...) \
  if (!(condition)) automl_ext::fail<std::invalid_argument>(__VA_ARGS__)
#define CHECK_INDEX(condition, ...) \
  if (!(condition)) automl_ext::fail<std::out_of_range>(__VA_ARGS__)
#define CHECK_TYPE(condition, ...) \
  if (!(condition)) automl_ext::fail<pybind11::type_error>(__VA_ARGS__)
