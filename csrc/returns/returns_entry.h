// Entry functions of the returns family, shared by all devices. The parameter Device runs the kernels:
//   Device::kernels()                              returns a struct with the members of ReturnsKernels
//   Device::run(op, like, member, dtype, arrays)   runs one of them on the device of `like`
#pragma once

#include <algorithm>
#include <tuple>

#include "../common/kernel_library.h"
#include "returns.h"

namespace automl_ext {
namespace returns_entry {

using Optional = const OptionalTensor&;
using Two = std::tuple<Tensor, Tensor>;
using Three = std::tuple<Tensor, Tensor, Tensor>;

// The arrays of one call: made contiguous, checked against the first array, and kept alive until the kernel has
// started.
template <class Device>
class Arrays {
 public:
  Arrays(const char* op, const Tensor& like, const char* name)
      : op_(op), like_(like), dtype_(dtype_of(like, op, name)) {
    CHECK_VALUE(like.dim() > 0, op, ": ", name, ": expected at least the time dim, got a 0-dimensional tensor");
    trajectory.steps = like.size(0);
    trajectory.columns = trajectory.steps ? like.numel() / trajectory.steps : 0;
  }

  const void* floats(const Tensor& x, const char* name) {
    CHECK_TYPE(x.scalar_type() == like_.scalar_type(), op_, ": ", name, ": expected a ", like_.scalar_type(),
               " tensor, got ", x.scalar_type());
    return checked(x, name);
  }
  const void* floats(Optional x, const char* name) { return x ? floats(*x, name) : nullptr; }

  void flags(Optional terminated, Optional truncated, Optional valid, bool carry = false) {
    trajectory.terminated = bytes(terminated, "terminated");
    trajectory.truncated = bytes(truncated, "truncated");
    trajectory.valid = bytes(valid, "valid");
    trajectory.carries = carry && valid;
  }

  // Allocate the kernel's next output, contiguous, in the shape of the inputs.
  Tensor output() {
    Tensor result = empty(like_.sizes(), like_);
    trajectory.out[outputs_++] = result.mutable_data_ptr();
    return result;
  }

  template <class Kernel>
  void run(const Kernel& kernel) const {
    if (like_.numel()) Device::run(op_, like_, kernel, dtype_, trajectory);
  }

  Trajectory trajectory{};

 private:
  const uint8_t* bytes(Optional x, const char* name) {
    if (!x) return nullptr;
    CHECK_TYPE(x->scalar_type() == ScalarType::Bool, op_, ": ", name, ": expected a bool tensor, got ",
               x->scalar_type());
    return static_cast<const uint8_t*>(checked(*x, name));
  }
  const void* checked(const Tensor& x, const char* name) {
    check_device(op_, name, x, like_);
    CHECK_VALUE(abi::equal(x.sizes(), like_.sizes()), op_, ": ", name, ": expected shape ", like_.sizes(), ", got ",
                x.sizes());
    if (x.is_contiguous()) return x.const_data_ptr();
    kept_.push_back(contiguous(x));
    return kept_.back().const_data_ptr();
  }

  const char* op_;
  const Tensor& like_;
  DType dtype_;
  int outputs_ = 0;
  std::vector<Tensor> kept_;
};

template <class Device>
Two gae(const Tensor& rewards, const Tensor& values, const Tensor& next_values, const Tensor& terminated,
        const Tensor& truncated, Optional valid, double gamma, double lam, bool carry) {
  Arrays<Device> arrays("gae", rewards, "rewards");
  Trajectory& x = arrays.trajectory;
  x.rewards = arrays.floats(rewards, "rewards");
  x.values = arrays.floats(values, "values");
  x.next_values = arrays.floats(next_values, "next_values");
  arrays.flags(terminated, truncated, valid, carry);
  x.gamma = gamma, x.lam = lam;
  Tensor advantages = arrays.output(), returns = arrays.output();
  arrays.run(Device::kernels().gae);
  return {advantages, returns};
}

template <class Device>
Three gae_backward(Optional grad_advantages, Optional grad_returns, const Tensor& terminated, const Tensor& truncated,
                   Optional valid, double gamma, double lam, bool carry) {
  CHECK_VALUE(grad_advantages || grad_returns, "gae: expected the gradient of at least one output");
  Arrays<Device> arrays("gae", grad_advantages ? *grad_advantages : *grad_returns, "grad");
  Trajectory& x = arrays.trajectory;
  x.grad = arrays.floats(grad_advantages, "grad_advantages");
  x.grad_returns = arrays.floats(grad_returns, "grad_returns");
  arrays.flags(terminated, truncated, valid, carry);
  x.gamma = gamma, x.lam = lam;
  Tensor grad_rewards = arrays.output(), grad_values = arrays.output(), grad_next_values = arrays.output();
  arrays.run(Device::kernels().gae_backward);
  return {grad_rewards, grad_values, grad_next_values};
}

template <class Device>
Tensor lambda_returns(const Tensor& rewards, const Tensor& next_values, Optional terminated, Optional truncated,
                      Optional valid, Optional discounts, double gamma, double lam, bool carry) {
  Arrays<Device> arrays("lambda_returns", rewards, "rewards");
  Trajectory& x = arrays.trajectory;
  x.rewards = arrays.floats(rewards, "rewards");
  x.next_values = arrays.floats(next_values, "next_values");
  x.discounts = arrays.floats(discounts, "discounts");
  arrays.flags(terminated, truncated, valid, carry);
  x.gamma = gamma, x.lam = lam;
  Tensor returns = arrays.output();
  arrays.run(Device::kernels().lambda_returns);
  return returns;
}

template <class Device>
Three lambda_returns_backward(const Tensor& grad, Optional terminated, Optional truncated, Optional valid,
                              Optional discounts, Optional next_values, Optional returns, double gamma, double lam,
                              bool carry) {
  Arrays<Device> arrays("lambda_returns", grad, "grad");
  Trajectory& x = arrays.trajectory;
  x.grad = arrays.floats(grad, "grad");
  x.discounts = arrays.floats(discounts, "discounts");
  x.next_values = arrays.floats(next_values, "next_values");
  x.returns = arrays.floats(returns, "returns");
  CHECK_VALUE(!returns || next_values, "lambda_returns: next_values: required together with returns");
  CHECK_VALUE(!returns || !carry, "lambda_returns: returns: expected none with carry");
  arrays.flags(terminated, truncated, valid, carry);
  x.gamma = gamma, x.lam = lam;
  Tensor grad_rewards = arrays.output(), grad_next_values = arrays.output();
  Tensor grad_discounts = returns ? arrays.output() : empty({0}, grad);
  arrays.run(Device::kernels().lambda_returns_backward);
  return {grad_rewards, grad_next_values, grad_discounts};
}

template <class Device>
Three n_step_returns(const Tensor& rewards, Optional next_values, const Tensor& terminated, const Tensor& truncated,
                     Optional valid, double gamma, int64_t n, bool carry) {
  Arrays<Device> arrays("n_step_returns", rewards, "rewards");
  Trajectory& x = arrays.trajectory;
  x.rewards = arrays.floats(rewards, "rewards");
  x.next_values = arrays.floats(next_values, "next_values");
  arrays.flags(terminated, truncated, valid, carry);
  x.gamma = gamma, x.n = std::min(n, std::max<int64_t>(x.steps, 1));  // sums with n must not overflow
  Tensor returns = arrays.output(), discounts = arrays.output();
  Tensor last = empty(rewards.sizes(), ScalarType::Long, rewards);
  x.last = last.mutable_data_ptr<int64_t>();
  arrays.run(Device::kernels().n_step);
  return {returns, discounts, last};
}

template <class Device>
Two n_step_returns_backward(const Tensor& grad, const Tensor& terminated, const Tensor& truncated, Optional valid,
                            double gamma, int64_t n, bool bootstraps, bool carry) {
  Arrays<Device> arrays("n_step_returns", grad, "grad");
  Trajectory& x = arrays.trajectory;
  x.grad = arrays.floats(grad, "grad");
  arrays.flags(terminated, truncated, valid, carry);
  x.gamma = gamma, x.n = std::min(n, std::max<int64_t>(x.steps, 1));  // sums with n must not overflow
  Tensor grad_rewards = arrays.output();
  Tensor grad_next_values = bootstraps ? arrays.output() : empty({0}, grad);
  arrays.run(Device::kernels().n_step_backward);
  return {grad_rewards, grad_next_values};
}

template <class Device>
Two vtrace(const Tensor& log_rhos, const Tensor& rewards, const Tensor& values, const Tensor& next_values,
           const Tensor& terminated, const Tensor& truncated, Optional valid, double gamma, double lam, double rho_clip,
           double c_clip) {
  Arrays<Device> arrays("vtrace", rewards, "rewards");
  Trajectory& x = arrays.trajectory;
  x.log_rhos = arrays.floats(log_rhos, "log_rhos");
  x.rewards = arrays.floats(rewards, "rewards");
  x.values = arrays.floats(values, "values");
  x.next_values = arrays.floats(next_values, "next_values");
  arrays.flags(terminated, truncated, valid);
  x.gamma = gamma, x.lam = lam, x.rho_clip = rho_clip, x.c_clip = c_clip;
  Tensor vs = arrays.output(), advantages = arrays.output();
  arrays.run(Device::kernels().vtrace);
  return {vs, advantages};
}

template <class Device>
Tensor retrace(const Tensor& log_rhos, const Tensor& q_values, const Tensor& rewards, const Tensor& next_values,
               const Tensor& terminated, const Tensor& truncated, Optional valid, double gamma, double lam) {
  Arrays<Device> arrays("retrace", rewards, "rewards");
  Trajectory& x = arrays.trajectory;
  x.log_rhos = arrays.floats(log_rhos, "log_rhos");
  x.values = arrays.floats(q_values, "q_values");
  x.rewards = arrays.floats(rewards, "rewards");
  x.next_values = arrays.floats(next_values, "next_values");
  arrays.flags(terminated, truncated, valid);
  x.gamma = gamma, x.lam = lam;
  Tensor targets = arrays.output();
  arrays.run(Device::kernels().retrace);
  return targets;
}

template <class Device>
void register_ops(StableLibrary& m) {
  implement<gae<Device>>(m, "gae", Device::kDirect);
  implement<gae_backward<Device>>(m, "_gae_backward", Device::kDirect);
  implement<lambda_returns<Device>>(m, "lambda_returns", Device::kDirect);
  implement<lambda_returns_backward<Device>>(m, "_lambda_returns_backward", Device::kDirect);
  implement<n_step_returns<Device>>(m, "n_step_returns", Device::kDirect);
  implement<n_step_returns_backward<Device>>(m, "_n_step_returns_backward", Device::kDirect);
  implement<vtrace<Device>>(m, "vtrace", Device::kDirect);
  implement<retrace<Device>>(m, "retrace", Device::kDirect);
}

}  // namespace returns_entry
}  // namespace automl_ext
