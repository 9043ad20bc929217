// Gradients of the ops, registered for the dispatch key Autograd. The backward of an op's graph node calls a fused op;
// if it is batched or must be differentiable (create_graph, torch.func), it calls a composite of ATen ops instead.
//
// An op supplies a struct with its attributes and
//   static constexpr const char* kName;
//   variable_list fused(const Grads&) const;      // runs below autograd
//   variable_list composite(const Grads&) const;  // differentiable
// Both return one gradient per input of the forward op, undefined where needs[i] is false or there is no gradient.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/inductor/aoti_torch/utils.h>
#include <torch/library.h>

#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <vector>

#include "abi.h"
#include "errors.h"

namespace automl_ext::autograd {

using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;
using NodePtr = decltype(torch::autograd::Edge::function);  // shared_ptr up to torch 2.11, intrusive_ptr later

template <class Pointer>
struct Pointers;
template <class N>
struct Pointers<std::shared_ptr<N>> {
  template <class T, class... Args>
  static std::shared_ptr<T> make(Args&&... args) {
    // torch::autograd::deleteNode, found by argument-dependent lookup: later versions of torch do not declare it.
    return std::shared_ptr<T>(new T(std::forward<Args>(args)...), [](T* node) { deleteNode(node); });
  }
  template <class T>
  static std::shared_ptr<N> self(T* node) {
    return node->shared_from_this();
  }
};
template <class N>
struct Pointers<c10::intrusive_ptr<N>> {
  template <class T, class... Args>
  static c10::intrusive_ptr<T> make(Args&&... args) {
    return c10::make_intrusive<T>(std::forward<Args>(args)...);
  }
  template <class T>
  static c10::intrusive_ptr<N> self(T* node) {
    return c10::intrusive_ptr<N>::unsafe_reclaim_from_nonowning(node);
  }
};

// The arguments of a backward function.
struct Grads {
  const variable_list& out;        // the gradients of the forward's outputs; some may be undefined
  const variable_list& saved;      // in the order in which they were saved
  const std::vector<bool>& needs;  // which inputs of the forward need a gradient
};

// Returns true if a gradient is batched (vmap, or torch.autograd.grad(is_grads_batched=True)) or has a tangent (forward over
// reverse). Composites support both.
inline bool need_composite(const variable_list& grads) {
  constexpr c10::DispatchKeySet keys({c10::DispatchKey::Batched, c10::DispatchKey::FuncTorchBatched});
  for (const auto& grad : grads)
    if (grad.defined() && (grad.key_set().has_any(keys) || grad._fw_grad(0).defined())) return true;
  return false;
}

template <class Op>
class OpNode final : public torch::autograd::TraceableFunction {
 public:
  explicit OpNode(Op op) : op_(std::move(op)) {}
  std::string name() const override { return Op::kName; }
  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& variable : saved_) variable.reset_data();
  }
  void save_input(const at::Tensor& x) { saved_.emplace_back(x, /*is_output=*/false); }
  void save_output(const at::Tensor& y) { saved_.emplace_back(y, /*is_output=*/true); }

  variable_list apply(variable_list&& grads) override {
    std::lock_guard<std::mutex> lock(mutex_);
    bool any = false;
    for (const auto& grad : grads) any |= grad.defined();
    if (!any) return variable_list(num_outputs());
    variable_list saved;
    for (auto& variable : saved_) saved.push_back(variable.unpack(Pointers<NodePtr>::self(this)));
    std::vector<bool> needs;
    for (size_t i = 0; i < num_outputs(); ++i) needs.push_back(task_should_compute_output(i));
    if (at::GradMode::is_enabled() || need_composite(grads)) return op_.composite({grads, saved, needs});
    at::AutoDispatchBelowADInplaceOrView below;
    return op_.fused({grads, saved, needs});
  }

 private:
  Op op_;
  std::vector<SavedVariable> saved_;
};

// Composites compute half precision in float, as the kernels do.
inline at::Tensor wide(const at::Tensor& x) {
  return x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16 ? x.to(at::kFloat) : x;
}
inline variable_list narrow(variable_list grads, at::ScalarType dtype) {
  for (auto& grad : grads)
    if (grad.defined()) grad = grad.to(dtype);
  return grads;
}

inline void check_no_forward_ad(const char* op, const at::Tensor& x) {
  TORCH_CHECK_NOT_IMPLEMENTED(!x.defined() || !x._fw_grad(0).defined(), op,
                              ": forward-mode automatic differentiation is not implemented");
}
inline void check_no_forward_ad(const char* op, const std::optional<at::Tensor>& x) {
  if (x) check_no_forward_ad(op, *x);
}
inline void check_no_forward_ad(const char* op, at::TensorList xs) {
  for (const auto& x : xs) check_no_forward_ad(op, x);
}

// The graph node of a call, connected to its inputs; null if no input requires a gradient.
template <class Op, class... Inputs>
auto make_node(const char* op_name, Op op, const Inputs&... inputs) {
  (check_no_forward_ad(op_name, inputs), ...);
  decltype(Pointers<NodePtr>::template make<OpNode<Op>>(std::move(op))) node;
  if (torch::autograd::compute_requires_grad(inputs...)) {
    node = Pointers<NodePtr>::template make<OpNode<Op>>(std::move(op));
    node->set_next_edges(torch::autograd::collect_next_edges(inputs...));
  }
  return node;
}

// ---- Calls of the kernels. They are in another library, whose C++ types are those of abi.h.

// The function automl_ext_kernel of that library (kernel_library.cpp); null before connect().
using FindKernel = void (*(*)(const char* name, const char* signature))();
inline FindKernel find_kernel = nullptr;

inline abi::Tensor borrow(const at::Tensor& x) {
  return abi::Tensor::borrow(torch::aot_inductor::tensor_pointer_to_tensor_handle(const_cast<at::Tensor*>(&x)));
}
inline at::Tensor adopt(abi::Tensor x) {
  const AtenTensorHandle handle = std::move(x).release();
  at::Tensor result = std::move(*torch::aot_inductor::tensor_handle_to_tensor_pointer(handle));
  aoti_torch_delete_tensor_object(handle);
  return result;
}

// How a type of ATen is passed to a kernel (Kernel), and an object that holds what is passed.
template <class T>
struct Passed {
  using Kernel = T;
  T value;
  T get() const { return value; }
};
template <>
struct Passed<const at::Tensor&> {
  using Kernel = const abi::Tensor&;
  abi::Tensor value;
  Passed(const at::Tensor& x) : value(borrow(x)) {}
  Kernel get() const { return value; }
};
template <>
struct Passed<const std::optional<at::Tensor>&> {
  using Kernel = const abi::OptionalTensor&;
  abi::OptionalTensor value;
  Passed(const std::optional<at::Tensor>& x) {
    if (x && x->defined()) value = borrow(*x);
  }
  Kernel get() const { return value; }
};
template <>
struct Passed<at::TensorList> {
  using Kernel = abi::TensorList;
  c10::SmallVector<abi::Tensor, 4> value;
  Passed(at::TensorList all) {
    for (const auto& x : all) value.push_back(borrow(x));
  }
  Kernel get() const { return {value.data(), value.size()}; }
};
template <>
struct Passed<at::IntArrayRef> {
  using Kernel = abi::IntList;
  at::IntArrayRef value;
  Kernel get() const { return value; }
};
template <>
struct Passed<const c10::List<bool>&> {
  using Kernel = const std::vector<bool>&;
  std::vector<bool> value;
  Passed(const c10::List<bool>& all) : value(all.vec()) {}
  Kernel get() const { return value; }
};

template <class T>
struct Returned {
  using Kernel = T;
};
template <>
struct Returned<at::Tensor> {
  using Kernel = abi::Tensor;
  static at::Tensor get(abi::Tensor x) { return adopt(std::move(x)); }
};
template <>
struct Returned<std::vector<at::Tensor>> {
  using Kernel = std::vector<abi::Tensor>;
  static std::vector<at::Tensor> get(Kernel all) {
    std::vector<at::Tensor> result;
    for (auto& x : all) result.push_back(adopt(std::move(x)));
    return result;
  }
};
template <class... T>
struct Returned<std::tuple<T...>> {
  using Kernel = std::tuple<typename Returned<T>::Kernel...>;
  static std::tuple<T...> get(Kernel all) {
    return std::apply([](auto&... each) { return std::tuple<T...>(Returned<T>::get(std::move(each))...); }, all);
  }
};

// Runs body with the errors of the kernels' library (errors.h) as torch's, whose types reach Python from every thread. A
// kernel throws the standard library's if it is called directly, and pybind11's if the dispatcher calls it.
template <class Body>
auto with_errors_of_torch(const Body& body) {
  try {
    return body();
  } catch (const std::invalid_argument& error) {
    TORCH_CHECK_VALUE(false, error.what());
  } catch (const std::out_of_range& error) {
    TORCH_CHECK_INDEX(false, error.what());
  } catch (const pybind11::value_error& error) {
    TORCH_CHECK_VALUE(false, error.what());
  } catch (const pybind11::index_error& error) {
    TORCH_CHECK_INDEX(false, error.what());
  } catch (const pybind11::type_error& error) {
    TORCH_CHECK_TYPE(false, error.what());
  }
}

// An op, called through the dispatcher, and its CPU kernel, called directly: boxing the arguments for the dispatcher would
// take longer than a small kernel.
template <class Signature>
struct Op;
template <class Result, class... Args>
struct Op<Result(Args...)> {
  using Kernel = typename Returned<Result>::Kernel(typename Passed<Args>::Kernel...);
  c10::TypedOperatorHandle<Result(Args...)> handle;
  Kernel* kernel;

  // name: with the namespace.
  explicit Op(const char* name)
      : handle(c10::Dispatcher::singleton().findSchemaOrThrow(name, "").template typed<Result(Args...)>()),
        kernel(reinterpret_cast<Kernel*>(find_kernel(std::strchr(name, ':') + 2, typeid(Kernel).name()))) {
    TORCH_INTERNAL_ASSERT(kernel, name, ": no CPU kernel of this signature");
  }

  // Calls what comes below autograd. keys: those that remain.
  Result redispatch(c10::DispatchKeySet keys, Args... args) const {
    return with_errors_of_torch([&] {
      return direct(keys) ? Returned<Result>::get(kernel(Passed<Args>{args}.get()...))
                          : handle.redispatch(keys, args...);
    });
  }
  Result call(Args... args) const {
    // BackendSelect does nothing for tensors.
    const auto keys = c10::impl::computeDispatchKeySet(c10::detail::multi_dispatch_key_set(args...),
                                                       c10::DispatchKeySet(c10::DispatchKeySet::FULL)) -
                      c10::DispatchKeySet(c10::DispatchKey::BackendSelect);
    return with_errors_of_torch([&] {
      return direct(keys) ? Returned<Result>::get(kernel(Passed<Args>{args}.get()...)) : handle.call(args...);
    });
  }

 private:
  static bool direct(c10::DispatchKeySet keys) { return keys.highestPriorityTypeId() == c10::DispatchKey::CPU; }
};

template <class Signature>
Op<Signature> find_op(const char* name) {
  return Op<Signature>(name);
}

// Calls the kernel of the op, below autograd.
template <class Signature, class... Args>
auto redispatch(const Op<Signature>& op, c10::DispatchKeySet keys, Args&&... args) {
  at::AutoDispatchBelowADInplaceOrView below;
  return op.redispatch(keys & c10::after_autograd_keyset, std::forward<Args>(args)...);
}

}  // namespace automl_ext::autograd
