// The device-independent part of the entry functions of Gumbel sampling: checks, groups, results.
#pragma once

#include <optional>
#include <tuple>

#include "../common/tensors.h"

namespace automl_ext {

using GumbelSampled = std::tuple<Tensor, Tensor, Tensor>;

// The groups of rows that have their own seed or temperature; both have shape [] or [groups…].
struct GumbelGroups {
  OptionalTensor seeds;  // contiguous int64; none in the backward pass
  double tau;
  OptionalTensor taus;  // contiguous; replaces tau
  int64_t rows_per_group, seed_step, tau_step;

  GumbelGroups(const char* op, const Rows& r, const OptionalTensor& seed, double tau_, const OptionalTensor& tau_tensor)
      : tau(tau_) {
    if (seed) {
      CHECK_TYPE(seed->scalar_type() == ScalarType::Long, op, ": seed: expected an int64 tensor, got ",
                 seed->scalar_type());
      check_device(op, "seed", *seed, r.data);
      seeds = contiguous(*seed);
    }
    if (tau_tensor) {
      check_device(op, "tau", *tau_tensor, r.data);
      taus = contiguous(is_floating_point(*tau_tensor) ? *tau_tensor : to_dtype(*tau_tensor, ScalarType::Double));
      dtype_of(*taus, op, "tau");
    }
    const int64_t seed_count = seeds ? seeds->numel() : 1, tau_count = taus ? taus->numel() : 1;
    const int64_t groups = std::max<int64_t>({1, seed_count, tau_count});
    const auto divides = [&](int64_t n) { return n == 1 || n == groups; };
    CHECK_VALUE(divides(seed_count) && divides(tau_count) && r.count % groups == 0, op,
                ": seed and tau: expected one, or one per group of rows (of ", r.count, " in all), got ", seed_count,
                " and ", tau_count);
    rows_per_group = std::max<int64_t>(1, r.count / groups);
    seed_step = seed_count > 1;
    tau_step = tau_count > 1;
  }
};

inline Tensor empty_tensor(const Tensor& like, ScalarType dtype) { return empty({0}, dtype, like); }

inline Tensor empty_gumbel_index(const Rows& r) {
  return empty(r.data.sizes().slice(0, size_t(r.data.dim() - 1)), ScalarType::Long, r.data);
}

// Calls run(dtype, rows, groups, soft, one_hot, index); outputs that are not needed are null. columns_of(dtype) are those that
// the kernel reads.
template <class Run>
GumbelSampled gumbel_sample(const char* op, const Tensor& logits, const Tensor& seed, double tau,
                            const OptionalTensor& tau_tensor, int64_t dim, bool hard, bool return_index, const Run& run,
                            ColumnsOf columns_of = no_columns) {
  const DType dtype = dtype_of(logits, op, "logits");
  const Rows r(logits, dim, columns_of(dtype));
  const GumbelGroups groups(op, r, seed, tau, tau_tensor);
  const Tensor soft = r.results();
  const Tensor one_hot = hard ? r.results() : Tensor();
  const bool needs_index = hard || return_index;
  const Tensor index = needs_index ? empty_gumbel_index(r) : empty_tensor(logits, ScalarType::Long);
  if (r.count)
    run(dtype, r, groups, soft.mutable_data_ptr(), hard ? one_hot.mutable_data_ptr() : nullptr,
        needs_index ? index.mutable_data_ptr<int64_t>() : nullptr);
  const Tensor soft_out = from_rows(soft, logits, dim);
  if (!hard) return {soft_out, empty_tensor(logits, logits.scalar_type()), index};
  return {from_rows(one_hot, logits, dim), soft_out, index};
}

// Calls run as gumbel_sample does.
template <class Run>
Tensor gumbel_argmax(const Tensor& logits, const Tensor& seed, int64_t dim, const Run& run,
                     ColumnsOf columns_of = no_columns) {
  const char* op = "gumbel_argmax";
  const DType dtype = dtype_of(logits, op, "logits");
  const Rows r(logits, dim, columns_of(dtype));
  const Tensor index = empty_gumbel_index(r);
  const GumbelGroups groups(op, r, seed, 1, std::nullopt);
  if (r.count) run(dtype, r, groups, nullptr, nullptr, index.mutable_data_ptr<int64_t>());
  return index;
}

// Calls run(dtype, rows of grad, rows of soft, groups, dx, dtau). dtau has the dtype of groups.taus; it is undefined unless
// tau_needs.
template <class Run>
std::tuple<Tensor, Tensor> gumbel_backward(const char* op, const Tensor& grad, const Tensor& soft, double tau,
                                           const OptionalTensor& tau_tensor, int64_t dim, bool tau_needs,
                                           const Run& run, ColumnsOf columns_of = no_columns) {
  const DType dtype = dtype_of(soft, op, "soft");
  check_like(op, "grad", grad, soft);
  const Columns columns = columns_of(dtype);
  const Rows g(grad, dim, columns), y(soft, dim, columns);
  const GumbelGroups groups(op, y, std::nullopt, tau, tau_tensor);
  const Tensor dx = y.results();
  Tensor dtau;
  if (tau_tensor && tau_needs)
    dtau = y.count ? empty(tau_tensor->sizes(), *groups.taus)
                   : zeros(tau_tensor->sizes(), groups.taus->scalar_type(), *groups.taus);
  if (y.count) run(dtype, g, y, groups, dx.mutable_data_ptr(), dtau);
  const Tensor dx_out = from_rows(dx, soft, dim);
  if (!dtau.defined()) return {dx_out, empty_tensor(soft, soft.scalar_type())};
  return {dx_out, to_dtype(dtau, tau_tensor->scalar_type())};
}

}  // namespace automl_ext
