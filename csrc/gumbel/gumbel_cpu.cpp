// CPU entry functions of Gumbel-softmax, Gumbel-entmax and Gumbel-argmax.

#include <vector>

#include "../common/kernel_library.h"
#include "gumbel.h"
#include "gumbel_entry.h"

namespace automl_ext::gumbel_cpu {
namespace {

std::vector<double> values_of(const GumbelGroups& groups) {
  if (!groups.taus) return {groups.tau};
  const Tensor t = to_dtype(*groups.taus, ScalarType::Double);
  return {t.const_data_ptr<double>(), t.const_data_ptr<double>() + t.numel()};
}

GumbelRows rows_of(int64_t n, const GumbelGroups& groups, const std::vector<double>& taus) {
  return {n,
          groups.rows_per_group,
          groups.seeds ? groups.seeds->const_data_ptr<int64_t>() : nullptr,
          groups.seed_step,
          taus.data(),
          groups.tau_step};
}

template <bool entmax>
constexpr const char* kName = entmax ? "gumbel_entmax15" : "gumbel_softmax";

auto runner(const GumbelKernels::Sample* table) {
  return [table](DType dtype, const Rows& r, const GumbelGroups& groups, void* soft, void* one_hot, int64_t* index) {
    const std::vector<double> taus = values_of(groups);
    const GumbelRows rows = rows_of(r.length, groups, taus);
    // Sampling the noise of an element takes about as long as 8 plain elements.
    parallel_rows(r.count, 8 * r.length, [&](int64_t begin, int64_t end) {
      const Scratch scratch(gumbel_scratch_bytes(r.length));
      table[dtype](rows, r.data.const_data_ptr(), soft, one_hot, index, begin, end, scratch.get());
    });
  };
}

template <bool entmax>
GumbelSampled sample(const Tensor& logits, const Tensor& seed, double tau, const OptionalTensor& tau_tensor,
                     int64_t dim, bool hard, bool return_index) {
  const auto* table = entmax ? gumbel_kernels().entmax15 : gumbel_kernels().softmax;
  return gumbel_sample(kName<entmax>, logits, seed, tau, tau_tensor, dim, hard, return_index, runner(table));
}

Tensor argmax(const Tensor& logits, const Tensor& seed, int64_t dim) {
  return gumbel_argmax(logits, seed, dim, runner(gumbel_kernels().softmax));
}

template <bool entmax>
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& soft, double tau,
                                    const OptionalTensor& tau_tensor, int64_t dim, bool tau_needs) {
  const auto* table = entmax ? gumbel_kernels().entmax15_backward : gumbel_kernels().softmax_backward;
  const auto run = [&](DType dtype, const Rows& g, const Rows& y, const GumbelGroups& groups, void* dx,
                       const Tensor& dtau) {
    const std::vector<double> taus = values_of(groups);
    const GumbelRows rows = rows_of(y.length, groups, taus);
    std::vector<double> dtau_rows(dtau.defined() ? y.count : 0);
    parallel_rows(y.count, y.length, [&](int64_t begin, int64_t end) {
      table[dtype](rows, g.data.const_data_ptr(), y.data.const_data_ptr(), dx,
                   dtau.defined() ? dtau_rows.data() : nullptr, begin, end);
    });
    if (!dtau.defined()) return;
    const Tensor sums = zeros(dtau.sizes(), ScalarType::Double, dtau);
    double* sum = sums.mutable_data_ptr<double>();
    for (int64_t row = 0; row < y.count; ++row) sum[row / rows.rows_per_group * rows.tau_step] += dtau_rows[row];
    copy_to(dtau, sums);
  };
  return gumbel_backward(kName<entmax>, grad, soft, tau, tau_tensor, dim, tau_needs, run);
}

}  // namespace
}  // namespace automl_ext::gumbel_cpu

STABLE_TORCH_LIBRARY_FRAGMENT(automl_ext, m) {
  // logits has any shape. seed (int64) and tau_tensor (float) have shape [], or under vmap a prefix of the shape of logits
  // with dim moved last; each seed has its own stream. tau_tensor replaces tau if given. y has the shape of logits. soft, the
  // sample before hardening, is [0] unless hard. index, without dim, is [0] unless hard or return_index.
  m.def(
      "gumbel_softmax(Tensor logits, Tensor seed, float tau, Tensor? tau_tensor, int dim, bool hard, "
      "bool return_index) -> (Tensor y, Tensor soft, Tensor index)");
  // The gradient of tau is [0] unless there is a tau_tensor and tau_needs.
  m.def(
      "_gumbel_softmax_backward(Tensor grad, Tensor soft, float tau, Tensor? tau_tensor, int dim, bool tau_needs) "
      "-> (Tensor logits, Tensor tau)");
  m.def(
      "gumbel_entmax15(Tensor logits, Tensor seed, float tau, Tensor? tau_tensor, int dim, bool hard, "
      "bool return_index) -> (Tensor y, Tensor soft, Tensor index)");
  m.def(
      "_gumbel_entmax15_backward(Tensor grad, Tensor soft, float tau, Tensor? tau_tensor, int dim, bool tau_needs) "
      "-> (Tensor logits, Tensor tau)");
  // The result is int64, in the shape of logits without dim.
  m.def("gumbel_argmax(Tensor logits, Tensor seed, int dim) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  using namespace automl_ext;
  using namespace automl_ext::gumbel_cpu;
  implement<sample<false>>(m, "gumbel_softmax", true);
  implement<backward<false>>(m, "_gumbel_softmax_backward", true);
  implement<sample<true>>(m, "gumbel_entmax15", true);
  implement<backward<true>>(m, "_gumbel_entmax15_backward", true);
  implement<argmax>(m, "gumbel_argmax", true);
}
