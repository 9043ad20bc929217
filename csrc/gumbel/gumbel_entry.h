// The device-independent part of the entry functions of Gumbel sampling: checks, groups, results.
#pragma once
#include <ATen/ops/zeros.h>

#include <optional>
#include <tuple>

#include "../common/tensors.h"

namespace automl_ext {

using GumbelSampled = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using OptionalTensor = std::optional<at::Tensor>;

// The groups of rows that have their own seed or temperature; both have shape [] or [groups…].
struct GumbelGroups {
  OptionalTensor seeds;  // contiguous int64; none in the backward pass
  double tau;
  OptionalTensor taus;  // contiguous; replaces tau
  int64_t rows_per_group, seed_step, tau_step;

  GumbelGroups(const char* op, const Rows& r, const OptionalTensor& seed, double tau_, const OptionalTensor& tau_tensor)
      : tau(tau_) {
    if (seed) {
      TORCH_CHECK_TYPE(seed->scalar_type() == at::kLong, op, ": seed: expected an int64 tensor, got ",
                       seed->scalar_type());
      check_device(op, "seed", *seed, r.data);
      seeds = seed->contiguous();
    }
    if (tau_tensor) {
      check_device(op, "tau", *tau_tensor, r.data);
      taus = (tau_tensor->is_floating_point() ? *tau_tensor : tau_tensor->to(at::kDouble)).contiguous();
      dtype_of(*taus, op, "tau");
    }
    const int64_t seed_count = seeds ? seeds->numel() : 1, tau_count = taus ? taus->numel() : 1;
    const int64_t groups = std::max<int64_t>({1, seed_count, tau_count});
    const auto divides = [&](int64_t n) { return n == 1 || n == groups; };
    TORCH_CHECK_VALUE(divides(seed_count) && divides(tau_count) && r.count % groups == 0, op,
                      ": seed and tau: expected one, or one per group of rows (of ", r.count, " in all), got ",
                      seed_count, " and ", tau_count);
    rows_per_group = std::max<int64_t>(1, r.count / groups);
    seed_step = seed_count > 1;
    tau_step = tau_count > 1;
  }
};

inline at::Tensor empty_tensor(const at::Tensor& like, at::ScalarType dtype) {
  return at::empty({0}, like.options().dtype(dtype));
}

inline at::Tensor empty_gumbel_index(const Rows& r) {
  return at::empty(r.data.sizes().slice(0, r.data.dim() - 1), r.data.options().dtype(at::kLong));
}

// Calls run(dtype, rows, groups, soft, one_hot, index); outputs that are not needed are null.
template <class Run>
GumbelSampled gumbel_sample(const char* op, const at::Tensor& logits, const at::Tensor& seed, double tau,
                            const OptionalTensor& tau_tensor, int64_t dim, bool hard, bool return_index,
                            const Run& run) {
  const DType dtype = dtype_of(logits, op, "logits");
  const Rows r(logits, dim);
  const GumbelGroups groups(op, r, seed, tau, tau_tensor);
  const at::Tensor soft = at::empty(r.data.sizes(), r.data.options());
  const at::Tensor one_hot = hard ? at::empty(r.data.sizes(), r.data.options()) : at::Tensor();
  const bool needs_index = hard || return_index;
  const at::Tensor index = needs_index ? empty_gumbel_index(r) : empty_tensor(logits, at::kLong);
  if (r.count)
    run(dtype, r, groups, soft.mutable_data_ptr(), hard ? one_hot.mutable_data_ptr() : nullptr,
        needs_index ? index.mutable_data_ptr<int64_t>() : nullptr);
  const at::Tensor soft_out = from_rows(soft, logits, dim);
  if (!hard) return {soft_out, empty_tensor(logits, logits.scalar_type()), index};
  return {from_rows(one_hot, logits, dim), soft_out, index};
}

// Calls run as gumbel_sample does.
template <class Run>
at::Tensor gumbel_argmax(const at::Tensor& logits, const at::Tensor& seed, int64_t dim, const Run& run) {
  const char* op = "gumbel_argmax";
  const DType dtype = dtype_of(logits, op, "logits");
  const Rows r(logits, dim);
  const at::Tensor index = empty_gumbel_index(r);
  const GumbelGroups groups(op, r, seed, 1, std::nullopt);
  if (r.count) run(dtype, r, groups, nullptr, nullptr, index.mutable_data_ptr<int64_t>());
  return index;
}

// Calls run(dtype, rows of grad, rows of soft, groups, dx, dtau). dtau has the dtype of groups.taus; it is undefined without
// tau_tensor.
template <class Run>
std::tuple<at::Tensor, at::Tensor> gumbel_backward(const char* op, const at::Tensor& grad, const at::Tensor& soft,
                                                   double tau, const OptionalTensor& tau_tensor, int64_t dim,
                                                   const Run& run) {
  const DType dtype = dtype_of(soft, op, "soft");
  check_like(op, "grad", grad, soft);
  const Rows g(grad, dim), y(soft, dim);
  const GumbelGroups groups(op, y, std::nullopt, tau, tau_tensor);
  const at::Tensor dx = at::empty(y.data.sizes(), y.data.options());
  at::Tensor dtau;
  if (tau_tensor)
    dtau = y.count ? at::empty(tau_tensor->sizes(), groups.taus->options())
                   : at::zeros(tau_tensor->sizes(), groups.taus->options());
  if (y.count) run(dtype, g, y, groups, dx.mutable_data_ptr(), dtau);
  const at::Tensor dx_out = from_rows(dx, soft, dim);
  if (!tau_tensor) return {dx_out, empty_tensor(soft, soft.scalar_type())};
  return {dx_out, dtau.to(tau_tensor->scalar_type())};
}

}  // namespace automl_ext
