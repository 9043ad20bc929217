// Entry functions of the targets family, shared by all devices. The parameter Device runs the kernels:
//   Device::kernels()                              returns a struct with the members of TargetsKernels
//   Device::run(op, like, member, dtype, arrays)   runs one of them on the device of `like`
#pragma once

#include <cmath>
#include <optional>

#include "../common/kernel_library.h"
#include "targets.h"

namespace automl_ext {
namespace targets_entry {

using Optional = const OptionalTensor&;

// Check that x has one element per row of `rows`; return it contiguous.
inline Tensor per_row(const char* op, const char* name, const Tensor& x, const Tensor& rows, ScalarType type) {
  const auto shape = rows.sizes().slice(0, rows.dim() - 1);
  check_device(op, name, x, rows);
  CHECK_TYPE(x.scalar_type() == type, op, ": ", name, ": expected a ", type, " tensor, got ", x.scalar_type());
  CHECK_VALUE(abi::equal(x.sizes(), shape), op, ": ", name, ": expected shape ", shape, ", got ", x.sizes());
  return contiguous(x);
}

template <class Device>
Tensor td_targets(const Tensor& rewards, const Tensor& next_q, const Tensor& terminated, Optional discounts,
                  Optional next_q_online, double gamma) {
  const char* op = "td_targets";
  const DType dtype = dtype_of(next_q, op, "next_q");
  CHECK_VALUE(next_q.dim() > 0 && next_q.size(-1) > 0, op, ": next_q: expected at least 1 action, got ",
              next_q.sizes());
  if (next_q_online) check_like(op, "next_q_online", *next_q_online, next_q);
  const Tensor q = contiguous(next_q), selector = next_q_online ? contiguous(*next_q_online) : q;
  const Tensor r = per_row(op, "rewards", rewards, next_q, next_q.scalar_type());
  const Tensor ends = per_row(op, "terminated", terminated, next_q, ScalarType::Bool);
  const Tensor d = discounts ? per_row(op, "discounts", *discounts, next_q, next_q.scalar_type()) : Tensor();
  Tensor out = empty(rewards.sizes(), rewards);
  const TdTargets targets{rewards.numel(),
                          next_q.size(-1),
                          q.const_data_ptr(),
                          selector.const_data_ptr(),
                          r.const_data_ptr(),
                          d.defined() ? d.const_data_ptr() : nullptr,
                          static_cast<const uint8_t*>(ends.const_data_ptr()),
                          out.mutable_data_ptr(),
                          gamma};
  if (targets.rows) Device::run(op, next_q, Device::kernels().td_targets, dtype, targets);
  return out;
}

template <class Device>
Tensor categorical_projection(const Tensor& next_probs, const Tensor& rewards, const Tensor& terminated,
                              Optional discounts, double gamma, double v_min, double v_max) {
  const char* op = "categorical_projection";
  const DType dtype = dtype_of(next_probs, op, "next_probs");
  CHECK_VALUE(next_probs.dim() > 0 && next_probs.size(-1) > 1, op, ": next_probs: expected at least 2 atoms, got ",
              next_probs.sizes());
  const auto spacings = double(next_probs.size(-1) - 1);
  CHECK_VALUE(v_min < v_max && std::isfinite(v_max - v_min) && std::isfinite(spacings / (v_max - v_min)), op,
              ": v_min and v_max: expected finite values with v_min < v_max, far enough apart, got ", v_min, " and ",
              v_max);
  const Tensor probs = contiguous(next_probs);
  const Tensor r = per_row(op, "rewards", rewards, next_probs, next_probs.scalar_type());
  const Tensor ends = per_row(op, "terminated", terminated, next_probs, ScalarType::Bool);
  const Tensor d = discounts ? per_row(op, "discounts", *discounts, next_probs, next_probs.scalar_type()) : Tensor();
  Tensor out = empty(next_probs.sizes(), next_probs);
  const Projection projection{rewards.numel(),
                              next_probs.size(-1),
                              probs.const_data_ptr(),
                              r.const_data_ptr(),
                              d.defined() ? d.const_data_ptr() : nullptr,
                              static_cast<const uint8_t*>(ends.const_data_ptr()),
                              out.mutable_data_ptr(),
                              gamma,
                              v_min,
                              v_max};
  if (projection.rows) Device::run(op, next_probs, Device::kernels().projection, dtype, projection);
  return out;
}

template <class Device>
void register_ops(StableLibrary& m) {
  implement<td_targets<Device>>(m, "td_targets", Device::kDirect);
  implement<categorical_projection<Device>>(m, "categorical_projection", Device::kDirect);
}

}  // namespace targets_entry
}  // namespace automl_ext
