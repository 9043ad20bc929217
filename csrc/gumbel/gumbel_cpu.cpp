// CPU entry functions of Gumbel-softmax, Gumbel-entmax and Gumbel-argmax.
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <memory>
#include <tuple>
#include <vector>

#include "../common/kernels.h"
#include "../common/tensors.h"

namespace automl_ext {
namespace {

using Sampled = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// The groups of rows that seeds and temperatures of shape [] or [groups…] make, as the kernels take them.
struct Groups {
  at::Tensor seeds;
  std::vector<double> taus;
  GumbelRows rows;

  Groups(const Rows& r, const at::Tensor& seed, double tau, const std::optional<at::Tensor>& tau_tensor)
      : seeds(seed.contiguous()) {
    TORCH_CHECK_TYPE(seeds.scalar_type() == at::kLong, "gumbel: seed: expected an int64 tensor, got ",
                     seeds.scalar_type());
    if (tau_tensor) {
      const at::Tensor t = tau_tensor->to(at::kDouble).contiguous();
      taus.assign(t.const_data_ptr<double>(), t.const_data_ptr<double>() + t.numel());
    } else {
      taus.push_back(tau);
    }
    const int64_t groups = std::max<int64_t>({1, seeds.numel(), int64_t(taus.size())});
    const auto divides = [&](int64_t n) { return n == 1 || n == groups; };
    TORCH_CHECK_VALUE(divides(seeds.numel()) && divides(taus.size()) && r.count % groups == 0,
                      "gumbel: seed and tau: expected one, or one for each of ", r.count, " rows' groups, got ",
                      seeds.numel(), " and ", taus.size());
    rows = {r.length, std::max<int64_t>(1, r.count / groups), seeds.const_data_ptr<int64_t>(), seeds.numel() > 1,
            taus.data(), taus.size() > 1};
  }
};

at::Tensor nothing(const at::Tensor& like, at::ScalarType dtype) { return at::empty({0}, like.options().dtype(dtype)); }

void run(const GumbelKernels::Sample kernel, const Rows& r, const Groups& groups, void* soft, void* one_hot,
         int64_t* index) {
  // Drawing noise costs about as much as 8 plain elements.
  parallel_rows(r.count, 8 * r.length, [&](int64_t begin, int64_t end) {
    const std::unique_ptr<char[]> scratch(new char[gumbel_scratch_bytes(r.length)]);
    kernel(groups.rows, r.data.const_data_ptr(), soft, one_hot, index, begin, end, scratch.get());
  });
}

at::Tensor empty_index(const Rows& r) {
  return at::empty(r.data.sizes().slice(0, r.data.dim() - 1), r.data.options().dtype(at::kLong));
}

Sampled sample(const GumbelKernels::Sample* table, const char* op, const at::Tensor& logits, const at::Tensor& seed,
               double tau, const std::optional<at::Tensor>& tau_tensor, int64_t dim, bool hard, bool return_index) {
  const auto kernel = table[dtype_of(logits, op, "logits")];
  const Rows r(logits, dim);
  const Groups groups(r, seed, tau, tau_tensor);
  const at::Tensor soft = at::empty(r.data.sizes(), r.data.options());
  const at::Tensor one_hot = hard ? at::empty(r.data.sizes(), r.data.options()) : at::Tensor();
  const bool wants_index = hard || return_index;
  const at::Tensor index = wants_index ? empty_index(r) : nothing(logits, at::kLong);
  run(kernel, r, groups, soft.mutable_data_ptr(), hard ? one_hot.mutable_data_ptr() : nullptr,
      wants_index ? index.mutable_data_ptr<int64_t>() : nullptr);
  const at::Tensor soft_out = from_rows(soft, logits, dim);
  if (!hard) return {soft_out, nothing(logits, logits.scalar_type()), index};
  return {from_rows(one_hot, logits, dim), soft_out, index};
}

std::tuple<at::Tensor, at::Tensor> sample_backward(const GumbelKernels::Backward* table, const char* op,
                                                   const at::Tensor& grad, const at::Tensor& soft, double tau,
                                                   const std::optional<at::Tensor>& tau_tensor, int64_t dim) {
  const auto kernel = table[dtype_of(soft, op, "soft")];
  check_like(op, "grad", grad, soft);
  const Rows g(grad, dim), y(soft, dim);
  const Groups groups(y, at::zeros({}, soft.options().dtype(at::kLong)), tau, tau_tensor);
  const at::Tensor dx = at::empty(y.data.sizes(), y.data.options());
  std::vector<double> dtau_rows(tau_tensor ? y.count : 0);
  parallel_rows(y.count, y.length, [&](int64_t begin, int64_t end) {
    kernel(groups.rows, g.data.const_data_ptr(), y.data.const_data_ptr(), dx.mutable_data_ptr(),
           tau_tensor ? dtau_rows.data() : nullptr, begin, end);
  });
  if (!tau_tensor) return {from_rows(dx, soft, dim), nothing(soft, soft.scalar_type())};
  const at::Tensor dtau = at::zeros(tau_tensor->sizes(), soft.options().dtype(at::kDouble));
  double* sums = dtau.mutable_data_ptr<double>();
  for (int64_t row = 0; row < y.count; ++row) sums[row / groups.rows.rows_per_group * groups.rows.tau_step] += dtau_rows[row];
  return {from_rows(dx, soft, dim), dtau.to(tau_tensor->scalar_type())};
}

Sampled softmax(const at::Tensor& logits, const at::Tensor& seed, double tau, const std::optional<at::Tensor>& tau_tensor,
                int64_t dim, bool hard, bool return_index) {
  return sample(kernels().gumbel.softmax, "gumbel_softmax", logits, seed, tau, tau_tensor, dim, hard, return_index);
}
Sampled entmax15(const at::Tensor& logits, const at::Tensor& seed, double tau,
                 const std::optional<at::Tensor>& tau_tensor, int64_t dim, bool hard, bool return_index) {
  return sample(kernels().gumbel.entmax15, "gumbel_entmax15", logits, seed, tau, tau_tensor, dim, hard, return_index);
}
std::tuple<at::Tensor, at::Tensor> softmax_backward(const at::Tensor& grad, const at::Tensor& soft, double tau,
                                                    const std::optional<at::Tensor>& tau_tensor, int64_t dim) {
  return sample_backward(kernels().gumbel.softmax_backward, "gumbel_softmax", grad, soft, tau, tau_tensor, dim);
}
std::tuple<at::Tensor, at::Tensor> entmax15_backward(const at::Tensor& grad, const at::Tensor& soft, double tau,
                                                     const std::optional<at::Tensor>& tau_tensor, int64_t dim) {
  return sample_backward(kernels().gumbel.entmax15_backward, "gumbel_entmax15", grad, soft, tau, tau_tensor, dim);
}
at::Tensor argmax(const at::Tensor& logits, const at::Tensor& seed, int64_t dim) {
  const auto kernel = kernels().gumbel.softmax[dtype_of(logits, "gumbel_argmax", "logits")];
  const Rows r(logits, dim);
  const Groups groups(r, seed, 1, std::nullopt);
  const at::Tensor index = empty_index(r);
  run(kernel, r, groups, nullptr, nullptr, index.mutable_data_ptr<int64_t>());
  return index;
}

}  // namespace
}  // namespace automl_ext

TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  m.impl("gumbel_softmax", TORCH_FN(automl_ext::softmax));
  m.impl("_gumbel_softmax_backward", TORCH_FN(automl_ext::softmax_backward));
  m.impl("gumbel_entmax15", TORCH_FN(automl_ext::entmax15));
  m.impl("_gumbel_entmax15_backward", TORCH_FN(automl_ext::entmax15_backward));
  m.impl("gumbel_argmax", TORCH_FN(automl_ext::argmax));
}
