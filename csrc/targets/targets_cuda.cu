// CUDA launches of the targets family.
#include "targets_cuda.h"

#include "../common/cuda/launch.cuh"
#include "projection_kernels.cuh"
#include "td_kernels.cuh"

namespace automl_ext {
namespace {

void launch_projection(DType dtype, const Projection& x, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  const double scale = projection_scale(x);
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    if (x.atoms <= kWarpAtoms)
      KERNEL_LAUNCH(projection_short_rows<T>, grid_of(blocks(x.rows, kProjectionThreads / 32)), kProjectionThreads, 0,
                    stream, x, scale);
    else
      KERNEL_LAUNCH(projection_long_rows<T>, grid_of(x.rows), long_row_block(x.atoms), 0, stream, x, scale);
  });
}

void launch_td_targets(DType dtype, const TdTargets& x, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    const int64_t bytes = kTdThreads * x.actions * int64_t(sizeof(T));
    if (bytes <= kTdTileBytes)
      KERNEL_LAUNCH(td_short_rows<T>, grid_of(blocks(x.rows, kTdThreads)), kTdThreads, size_t(bytes), stream, x,
                    reinterpret_cast<uintptr_t>(x.selector) % 16 == 0);
    else
      KERNEL_LAUNCH(td_long_rows<T>, grid_of(blocks(x.rows, kTdThreads / kTdLanes)), kTdThreads, 0, stream, x);
  });
}

}  // namespace

const TargetsLaunches& targets_launches() {
  static constexpr TargetsLaunches launches = {launch_projection, launch_td_targets};
  return launches;
}

}  // namespace automl_ext
