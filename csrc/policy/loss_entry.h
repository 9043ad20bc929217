// Entry functions of policy_gradient_loss, shared by all devices. The forward pass computes the gradient, too. The parameter
// Device runs the kernel:
//   Device::losses(dtype, like, call, elements, ent_coef)   returns the loss and its terms
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>

#include "../common/kernel_library.h"
#include "policy.h"

namespace automl_ext {
namespace loss_entry {

using Optional = const OptionalTensor&;
using Losses = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using Trained = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

constexpr const char* kLoss = "policy_gradient_loss";

// of_log_probs and of_values are null if no gradient is needed.
template <class Device>
Losses run(const Tensor& log_probs, const Tensor& entropy, const Tensor& values, const Tensor& advantages,
           const Tensor& returns, Optional old_log_probs, Optional old_values, Optional weights, double clip,
           double value_clip, double vf_coef, double ent_coef, void* of_log_probs, void* of_values) {
  const DType dtype = dtype_of(log_probs, kLoss, "log_probs");
  std::vector<Tensor> given;  // keeps copies alive
  const auto data = [&](const char* name, const Tensor& x) {
    check_like(kLoss, name, x, log_probs);
    given.push_back(contiguous(x));
    return given.back().const_data_ptr();
  };
  const auto maybe = [&](const char* name, Optional x) { return x ? data(name, *x) : nullptr; };
  const int64_t n = log_probs.numel();
  CHECK_VALUE(n || weights, kLoss, ": log_probs: expected at least one element, got shape ", log_probs.sizes());
  CHECK_VALUE(clip > 0, kLoss, ": clip: expected a positive number, got ", clip);
  CHECK_VALUE(value_clip > 0, kLoss, ": value_clip: expected a positive number, got ", value_clip);
  CHECK_VALUE(std::isfinite(vf_coef), kLoss, ": vf_coef: expected a finite number, got ", vf_coef);
  CHECK_VALUE(std::isfinite(ent_coef), kLoss, ": ent_coef: expected a finite number, got ", ent_coef);
  const PolicyLoss call{data("log_probs", log_probs),
                        data("entropy", entropy),
                        data("values", values),
                        data("advantages", advantages),
                        data("returns", returns),
                        maybe("old_log_probs", old_log_probs),
                        maybe("old_values", old_values),
                        maybe("weights", weights),
                        of_log_probs,
                        of_values,
                        1 / double(n),
                        std::min(clip, 1e30),
                        std::min(value_clip, 1e30),
                        vf_coef};
  return Device::losses(dtype, log_probs, call, n, ent_coef);
}

template <class Device>
Losses loss(const Tensor& log_probs, const Tensor& entropy, const Tensor& values, const Tensor& advantages,
            const Tensor& returns, Optional old_log_probs, Optional old_values, Optional weights, double clip,
            double value_clip, double vf_coef, double ent_coef) {
  return run<Device>(log_probs, entropy, values, advantages, returns, old_log_probs, old_values, weights, clip,
                     value_clip, vf_coef, ent_coef, nullptr, nullptr);
}

template <class Device>
Trained trained(const Tensor& log_probs, const Tensor& entropy, const Tensor& values, const Tensor& advantages,
                const Tensor& returns, Optional old_log_probs, Optional old_values, Optional weights, double clip,
                double value_clip, double vf_coef, double ent_coef) {
  Tensor of_log_probs = empty(log_probs.sizes(), log_probs), of_values = empty(log_probs.sizes(), log_probs);
  auto [total, policy, value, mean] =
      run<Device>(log_probs, entropy, values, advantages, returns, old_log_probs, old_values, weights, clip, value_clip,
                  vf_coef, ent_coef, of_log_probs.mutable_data_ptr(), of_values.mutable_data_ptr());
  return {total, policy, value, mean, of_log_probs, of_values};
}

template <class Device>
void register_ops(StableLibrary& m) {
  implement<loss<Device>>(m, "policy_gradient_loss", Device::kDirect);
  implement<trained<Device>>(m, "_policy_gradient_loss_trained", Device::kDirect);
}

}  // namespace loss_entry
}  // namespace automl_ext
