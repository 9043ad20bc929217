// Registration of entry functions with torch. An entry function takes and returns
//   Tensor, const OptionalTensor&, TensorList, IntList, const std::vector<bool>&, int64_t, double, bool;
//   Tensor, std::vector<Tensor>, or a tuple of these.
//
//   STABLE_TORCH_LIBRARY_IMPL(automl_ext, CPU, m) { implement<entmax15>(m, "entmax15", true); }
#pragma once
#include <torch/csrc/stable/library.h>

#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <vector>

#include "errors.h"
#include "tensors.h"

// Functions for automl_ext/_native.py and other callers by name.
#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace automl_ext {

using torch::stable::detail::StableLibrary;

// An argument of a boxed call, which owns what the stack has passed.
template <class T>
struct Argument {
  T value;
  explicit Argument(StableIValue x) : value(stable::to<T>(x)) {}
  T get() const { return value; }
};
template <>
struct Argument<Tensor> {
  Tensor value;
  explicit Argument(StableIValue x) : value(Tensor::own(stable::to<AtenTensorHandle>(x))) {}
  const Tensor& get() const { return value; }
};
template <>
struct Argument<OptionalTensor> {
  OptionalTensor value;
  explicit Argument(StableIValue x) {
    if (const auto handle = stable::to<std::optional<AtenTensorHandle>>(x)) value = Tensor::own(*handle);
  }
  const OptionalTensor& get() const { return value; }
};
template <>
struct Argument<TensorList> {
  std::vector<Tensor> value;
  explicit Argument(StableIValue x) {
    for (const auto handle : stable::to<std::vector<AtenTensorHandle>>(x)) value.push_back(Tensor::own(handle));
  }
  TensorList get() const { return value; }
};
template <class T>
struct Argument<std::vector<T>> {
  std::vector<T> value;
  explicit Argument(StableIValue x) : value(stable::to<std::vector<T>>(x)) {}
  const std::vector<T>& get() const { return value; }
};
template <>
struct Argument<IntList> : Argument<std::vector<int64_t>> {
  using Argument<std::vector<int64_t>>::Argument;
};

inline StableIValue result(Tensor x) { return stable::from(std::move(x).release()); }
inline StableIValue result(std::vector<Tensor> all) {
  std::vector<AtenTensorHandle> handles;
  for (Tensor& x : all) handles.push_back(std::move(x).release());
  return stable::from(std::move(handles));
}

template <auto function>
struct Boxed;
template <class Result, class... Args, Result (*function)(Args...)>
struct Boxed<function> {
  static void call(StableIValue* stack, uint64_t, uint64_t) {
    with_errors_of_python([&] { call(stack, std::index_sequence_for<Args...>()); });
  }

 private:
  template <size_t... i>
  static void call(StableIValue* stack, std::index_sequence<i...>) {
    const std::tuple<Argument<std::decay_t<Args>>...> arguments{Argument<std::decay_t<Args>>(stack[i])...};
    put(stack, function(std::get<i>(arguments).get()...));
  }
  template <class... T>
  static void put(StableIValue* stack, std::tuple<T...> all) {
    std::apply([&](T&... each) { ((*stack++ = result(std::move(each))), ...); }, all);
  }
  template <class T>
  static void put(StableIValue* stack, T one) {
    *stack = result(std::move(one));
  }
};

// The CPU kernels by name, for calls without the dispatcher (common/autograd.h).
struct DirectKernel {
  const char* name;
  const char* signature;
  void (*function)();
};
std::vector<DirectKernel>& direct_kernels();

template <auto function>
void implement(StableLibrary& m, const char* name, bool direct = false) {
  m.impl(name, Boxed<function>::call);
  if (direct)
    direct_kernels().push_back(
        {name, typeid(std::remove_pointer_t<decltype(function)>).name(), reinterpret_cast<void (*)()>(function)});
}

}  // namespace automl_ext
