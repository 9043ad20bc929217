// CUDA launches of the targets family.
#include "targets_cuda.h"

#include "../common/cuda/launch.cuh"
#include "projection_kernels.cuh"
#include "td_kernels.cuh"

namespace automl_ext {
namespace {

void launch_projection(DType dtype, const Projection& x, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    if (x.atoms <= kWarpAtoms) {
      KERNEL_LAUNCH(projection_short_rows<T>, grid_of(blocks(x.rows, kProjectionThreads / 32)), kProjectionThreads, 0,
                    stream, x);
      return;
    }
    const int64_t bytes = x.atoms * int64_t(sizeof(double));
    const bool shared = bytes <= shared_memory_limit();
    static SharedMemoryAllowance allowance;
    if (shared && !allow_shared_memory(projection_long_rows<T>, bytes, allowance)) return;
    KERNEL_LAUNCH(projection_long_rows<T>, grid_of(x.rows), long_row_block(x.atoms), shared ? size_t(bytes) : 0, stream,
                  x, shared);
  });
}

void launch_td_targets(DType dtype, const TdTargets& x, void* stream) {
  for_dtype(dtype, [&](auto element) {
    KERNEL_LAUNCH(td_rows<decltype(element)>, grid_of(blocks(x.rows, kTdThreads / kTdLanes)), kTdThreads, 0,
                  static_cast<cudaStream_t>(stream), x);
  });
}

}  // namespace

const TargetsLaunches& targets_launches() {
  static constexpr TargetsLaunches launches = {launch_projection, launch_td_targets};
  return launches;
}

}  // namespace automl_ext
