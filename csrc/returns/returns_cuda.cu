// Launches of the returns family.
#include "returns_cuda.h"

#include "../common/cuda/launch.cuh"
#include "n_step_kernels.cuh"
#include "scan_kernels.cuh"

namespace automl_ext {
namespace {

int64_t multiprocessors() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

// The least power of two that is at least n, up to a limit that is one.
int64_t power_of_two(int64_t n, int64_t limit) {
  int64_t power = 1;
  while (power < n && power < limit) power *= 2;
  return power;
}

// Columns and chunks of time of a block. Many columns keep the device busy alone; where they are fewer, time is cut
// into chunks, and columns are spread over as many blocks as there are multiprocessors, as long as a block still reads
// whole sectors of memory.
dim3 scan_block(const Trajectory& x, int64_t items) {
  constexpr int64_t kWidth = 32, kLeastWidth = 8, kMostChunks = 64;
  const int64_t processors = multiprocessors();
  if (x.steps <= items || x.columns >= processors * kScanThreads) return dim3(kScanThreads / 2);
  int64_t width = power_of_two(x.columns, kWidth);
  while (width > kLeastWidth && x.columns < processors * width) width /= 2;
  const int64_t most = kScanThreads / width;
  const int64_t chunks = power_of_two(blocks(x.steps, items), most < kMostChunks ? most : kMostChunks);
  while (width * chunks < 32) width *= 2;  // a whole warp
  return dim3(unsigned(width), unsigned(chunks));
}

template <template <class> class Op>
void launch_scan(DType dtype, const Trajectory& x, void* stream) {
  for_dtype(dtype, [&](auto element) {
    using Scan = Op<decltype(element)>;
    const dim3 block = scan_block(x, kScanItems<Scan>);
    KERNEL_LAUNCH(scan<Scan>, grid_of(blocks(x.columns, block.x)), block, 0, static_cast<cudaStream_t>(stream), x);
  });
}

// Columns and steps of a block: steps whose windows overlap, as long as neither is wasted.
dim3 n_step_block(const Trajectory& x) {
  constexpr int64_t kSteps = 16;
  const int64_t width = power_of_two(x.columns, kNStepThreads / power_of_two(x.steps, kSteps));
  return dim3(unsigned(width), unsigned(kNStepThreads / width));
}
dim3 n_step_grid(const Trajectory& x, dim3 block) {
  return grid_of(blocks(x.columns, block.x) * blocks(x.steps, block.y));
}

void launch_n_step(DType dtype, const Trajectory& x, void* stream) {
  const dim3 block = n_step_block(x);
  for_dtype(dtype, [&](auto element) {
    KERNEL_LAUNCH(n_step_windows<decltype(element)>, n_step_grid(x, block), block, 0, static_cast<cudaStream_t>(stream),
                  x);
  });
}
void launch_n_step_backward(DType dtype, const Trajectory& x, void* stream) {
  const dim3 block = n_step_block(x);
  for_dtype(dtype, [&](auto element) {
    KERNEL_LAUNCH(n_step_gradients<decltype(element)>, n_step_grid(x, block), block, 0,
                  static_cast<cudaStream_t>(stream), x);
  });
}

}  // namespace

const ReturnsLaunches& returns_launches() {
  static constexpr ReturnsLaunches launches = {
      launch_scan<GaeScan>,    launch_scan<GaeGradientScan>,
      launch_scan<LambdaScan>, launch_scan<LambdaGradientScan>,
      launch_n_step,           launch_n_step_backward,
      launch_scan<VtraceScan>, launch_scan<RetraceScan>,
  };
  return launches;
}

}  // namespace automl_ext
