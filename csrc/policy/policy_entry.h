// Entry functions of categorical_log_probs, shared by all devices. The parameter Device runs the kernels:
//   Device::categorical(dtype, logits, call) and Device::categorical_backward(dtype, logits, call)
#pragma once

#include <optional>
#include <tuple>

#include "../common/kernel_library.h"
#include "policy.h"

namespace automl_ext {
namespace policy_entry {

using Pair = std::tuple<Tensor, Tensor>;
using Trained = std::tuple<Tensor, Tensor, Tensor>;
using Optional = const OptionalTensor&;

constexpr const char* kCategorical = "categorical_log_probs";

// Checks the shapes, and on the CPU that all actions exist.
inline Tensor checked_actions(const Tensor& logits, const Tensor& actions) {
  CHECK_VALUE(logits.dim() > 0 && logits.size(-1) > 0, kCategorical, ": logits: expected at least 1 action, got ",
              logits.sizes());
  const auto shape = logits.sizes().slice(0, logits.dim() - 1);
  check_device(kCategorical, "actions", actions, logits);
  CHECK_TYPE(actions.scalar_type() == ScalarType::Long, kCategorical, ": actions: expected an int64 tensor, got ",
             actions.scalar_type());
  CHECK_VALUE(abi::equal(actions.sizes(), shape), kCategorical, ": actions: expected shape ", shape, ", got ",
              actions.sizes());
  Tensor rows = contiguous(actions);
  if (!actions.device().is_cpu()) return rows;
  const int64_t* const each = rows.const_data_ptr<int64_t>();
  for (int64_t i = 0, n = rows.numel(); i < n; ++i)
    CHECK_VALUE(each[i] >= 0 && each[i] < logits.size(-1), kCategorical, ": actions: expected values in [0, ",
                logits.size(-1), "), got ", each[i]);
  return rows;
}

// [3, rows...] in the type of the computation.
inline Tensor empty_statistics(const Tensor& logits, const Tensor& actions) {
  std::vector<int64_t> sizes{3};
  for (int64_t i = 0; i < actions.dim(); ++i) sizes.push_back(actions.size(i));
  const bool wide = logits.scalar_type() == ScalarType::Double;
  return empty(sizes, wide ? ScalarType::Double : ScalarType::Float, logits);
}

// statistics: null if no gradient is needed.
template <class Device>
Pair run(const Tensor& logits, const Tensor& actions, void* statistics) {
  const DType dtype = dtype_of(logits, kCategorical, "logits");
  const Tensor a = checked_actions(logits, actions), x = contiguous(logits);
  Tensor log_probs = empty(actions.sizes(), x), entropy = empty_like(log_probs);
  const CategoricalCall call{log_probs.numel(),
                             x.size(-1),
                             x.const_data_ptr(),
                             a.const_data_ptr<int64_t>(),
                             log_probs.mutable_data_ptr(),
                             entropy.mutable_data_ptr(),
                             statistics};
  if (call.rows) Device::categorical(dtype, x, call);
  return {log_probs, entropy};
}
template <class Device>
Pair categorical(const Tensor& logits, const Tensor& actions) {
  return run<Device>(logits, actions, nullptr);
}
template <class Device>
Trained categorical_trained(const Tensor& logits, const Tensor& actions) {
  dtype_of(logits, kCategorical, "logits");
  Tensor statistics = empty_statistics(logits, actions);
  auto [log_probs, entropy] = run<Device>(logits, actions, statistics.mutable_data_ptr());
  return {log_probs, entropy, statistics};
}

template <class Device>
Tensor categorical_backward(Optional grad_log_probs, Optional grad_entropy, const Tensor& logits, const Tensor& actions,
                            Optional statistics) {
  const DType dtype = dtype_of(logits, kCategorical, "logits");
  const Tensor a = checked_actions(logits, actions), x = contiguous(logits);
  const auto checked = [&](const char* name, Optional grad) {
    if (!grad) return Tensor();
    CHECK_VALUE(
        grad->scalar_type() == x.scalar_type() && grad->device() == x.device() && abi::equal(grad->sizes(), a.sizes()),
        kCategorical, ": ", name, ": expected a tensor like log_probs");
    return contiguous(*grad);
  };
  const Tensor of_log_probs = checked("grad_log_probs", grad_log_probs),
               of_entropy = checked("grad_entropy", grad_entropy);
  Tensor kept;
  if (!statistics && !x.device().is_cpu()) kept = std::get<2>(categorical_trained<Device>(x, a));
  if (statistics) {
    const Tensor like = empty_statistics(x, a);
    CHECK_VALUE(statistics->scalar_type() == like.scalar_type() && statistics->device() == x.device() &&
                    abi::equal(statistics->sizes(), like.sizes()),
                kCategorical, ": statistics: expected those of _categorical_log_probs_trained");
    kept = contiguous(*statistics);
  }
  Tensor grad = empty_like(x);
  const CategoricalBackward call{a.numel(),
                                 x.size(-1),
                                 x.const_data_ptr(),
                                 a.const_data_ptr<int64_t>(),
                                 of_log_probs.defined() ? of_log_probs.const_data_ptr() : nullptr,
                                 of_entropy.defined() ? of_entropy.const_data_ptr() : nullptr,
                                 kept.defined() ? kept.const_data_ptr() : nullptr,
                                 grad.mutable_data_ptr()};
  if (call.rows) Device::categorical_backward(dtype, x, call);
  return grad;
}

template <class Device>
void register_ops(StableLibrary& m) {
  implement<categorical<Device>>(m, "categorical_log_probs", Device::kDirect);
  implement<categorical_trained<Device>>(m, "_categorical_log_probs_trained", Device::kDirect);
  implement<categorical_backward<Device>>(m, "_categorical_log_probs_backward", Device::kDirect);
}

}  // namespace policy_entry
}  // namespace automl_ext
