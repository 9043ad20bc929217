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
#include <torch/library.h>

#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <vector>

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

// Calls the kernel of the op, below autograd.
template <class Handle, class... Args>
auto redispatch(const Handle& handle, c10::DispatchKeySet keys, Args&&... args) {
  at::AutoDispatchBelowADInplaceOrView below;
  return handle.redispatch(keys & c10::after_autograd_keyset, std::forward<Args>(args)...);
}

template <class Signature>
auto find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace automl_ext::autograd
