// Launches of policy-gradient methods.
#include "policy_cuda.h"

#include "../common/cuda/launch.cuh"
#include "categorical_kernels.cuh"
#include "loss_kernels.cuh"

namespace automl_ext {
namespace {

constexpr int64_t kRegisterRow = 256;

// Calls short_rows(lanes, items) for rows in registers, else long_rows().
template <class Short, class Long>
void for_categories(int64_t n, const Short& short_rows, const Long& long_rows) {
  if (n > kRegisterRow) return long_rows();
  for_short_rows(n, [&](auto lanes, auto items) {
    if constexpr (lanes() * items() <= kRegisterRow) short_rows(lanes, items);
  });
}

int64_t loss_blocks(int64_t n) { return blocks(n, kLossThreads * kLossItems); }

}  // namespace

void launch_categorical(DType dtype, const CategoricalCall& x, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    for_categories(
        x.n,
        [&](auto lanes, auto items) {
          KERNEL_LAUNCH((categorical_short_rows<T, lanes(), items()>), short_rows_grid(x.rows, lanes()),
                        kShortRowThreads, 0, stream, x);
        },
        [&] { KERNEL_LAUNCH(categorical_long_rows<T>, grid_of(x.rows), kVocabularyThreads, 0, stream, x); });
  });
}

void launch_categorical_backward(DType dtype, const CategoricalBackward& x, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    for_categories(
        x.n,
        [&](auto lanes, auto items) {
          KERNEL_LAUNCH((categorical_backward_short_rows<T, lanes(), items()>), short_rows_grid(x.rows, lanes()),
                        kShortRowThreads, 0, stream, x);
        },
        [&] { KERNEL_LAUNCH(categorical_backward_long_rows<T>, grid_of(x.rows), long_row_block(x.n), 0, stream, x); });
  });
}

int64_t policy_loss_workspace(int64_t n) { return 3 * loss_blocks(n); }

void launch_policy_loss(DType dtype, const PolicyLoss& x, int64_t n, double ent_coef, double* workspace,
                        void* const (&losses)[4], void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  const PolicyLosses out{losses[0], losses[1], losses[2], losses[3]};
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    const int64_t count = loss_blocks(n);
    if (count) KERNEL_LAUNCH(policy_loss<T>, grid_of(count), kLossThreads, 0, stream, x, n, workspace);
    KERNEL_LAUNCH(policy_loss_total<T>, 1, kLossThreads, 0, stream, workspace, count, x.vf_coef, ent_coef, out);
  });
}

}  // namespace automl_ext
