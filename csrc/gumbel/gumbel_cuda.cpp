// CUDA entry functions of Gumbel-softmax, Gumbel-entmax and Gumbel-argmax.

#include "gumbel_cuda.h"
#include "../common/cuda/device.h"
#include "../common/kernel_library.h"
#include "gumbel_entry.h"

namespace automl_ext {
namespace {

GumbelCudaRows rows_of(const char* op, const Rows& r, const GumbelGroups& groups) {
  GumbelCudaRows rows{};
  rows.count = r.count;
  rows.n = r.length;
  rows.rows_per_group = groups.rows_per_group;
  if (groups.seeds) rows.seeds = groups.seeds->const_data_ptr<int64_t>();
  rows.seed_step = groups.seed_step;
  rows.tau = groups.tau;
  if (groups.taus) {
    rows.taus = groups.taus->const_data_ptr();
    rows.tau_dtype = dtype_of(*groups.taus, op, "tau");
  }
  rows.tau_step = groups.tau_step;
  rows.inner = r.inner;
  return rows;
}

template <bool entmax>
constexpr const char* kName = entmax ? "gumbel_entmax15" : "gumbel_softmax";

auto runner(const CudaCall& call, const char* op, bool entmax) {
  return [&call, op, entmax](DType dtype, const Rows& r, const GumbelGroups& groups, void* soft, void* one_hot,
                             int64_t* index) {
    const GumbelCudaRows rows = rows_of(op, r, groups);
    const Workspace workspace(gumbel_workspace(dtype, rows, soft), r.data);
    launch_gumbel(entmax, dtype, rows, r.data.const_data_ptr(), soft, one_hot, index, workspace.get(), call.stream());
    call.check();
  };
}

template <bool entmax>
GumbelSampled sample(const Tensor& logits, const Tensor& seed, double tau, const OptionalTensor& tau_tensor,
                     int64_t dim, bool hard, bool return_index) {
  const CudaCall call(kName<entmax>, logits);
  return gumbel_sample(kName<entmax>, logits, seed, tau, tau_tensor, dim, hard, return_index,
                       runner(call, kName<entmax>, entmax), gumbel_cuda_columns);
}

Tensor argmax(const Tensor& logits, const Tensor& seed, int64_t dim) {
  const CudaCall call("gumbel_argmax", logits);
  return gumbel_argmax(logits, seed, dim, runner(call, "gumbel_argmax", false), gumbel_cuda_columns);
}

template <bool entmax>
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& soft, double tau,
                                    const OptionalTensor& tau_tensor, int64_t dim, bool tau_needs) {
  const CudaCall call(kName<entmax>, soft);
  const auto run = [&](DType dtype, const Rows& g, const Rows& y, const GumbelGroups& groups, void* dx,
                       const Tensor& dtau) {
    const GumbelCudaRows rows = rows_of(kName<entmax>, y, groups);
    Tensor partials;
    if (dtau.defined()) partials = empty({gumbel_tau_partials(rows)}, ScalarType::Double, y.data);
    launch_gumbel_backward(entmax, dtype, rows, g.data.const_data_ptr(), y.data.const_data_ptr(), dx,
                           dtau.defined() ? partials.mutable_data_ptr<double>() : nullptr,
                           dtau.defined() ? dtau.mutable_data_ptr() : nullptr, call.stream());
    call.check();
  };
  return gumbel_backward(kName<entmax>, grad, soft, tau, tau_tensor, dim, tau_needs, run, gumbel_cuda_columns);
}

}  // namespace
}  // namespace automl_ext

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CUDA, m) {
  using namespace automl_ext;
  implement<sample<false>>(m, "gumbel_softmax");
  implement<backward<false>>(m, "_gumbel_softmax_backward");
  implement<sample<true>>(m, "gumbel_entmax15");
  implement<backward<true>>(m, "_gumbel_entmax15_backward");
  implement<argmax>(m, "gumbel_argmax");
}
