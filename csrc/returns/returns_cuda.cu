// CUDA launches of the returns family.
#include "returns_cuda.h"

#include "../common/cuda/launch.cuh"
#include "scan_kernels.cuh"
#include "window_kernels.cuh"

namespace automl_ext {
namespace {

// The smallest power of two that is at least n, at most `limit`, which is itself a power of two.
int64_t power_of_two(int64_t n, int64_t limit) {
  int64_t power = 1;
  while (power < n && power < limit) power *= 2;
  return power;
}

// The columns and time chunks of a block. Many columns occupy the device without chunks. With fewer columns, time is
// divided into chunks and the columns are distributed over one block per multiprocessor, as long as each block still
// reads whole 32-byte sectors of memory. Narrower blocks read more than they use, from the L2 cache, which is faster than
// several tiles one after another.
dim3 scan_block(const Trajectory& x, int64_t items, int64_t element_size) {
  constexpr int64_t kWidth = 32;
  const int64_t sector = 32 / element_size;
  const int64_t processors = device_attribute(cudaDevAttrMultiProcessorCount);
  if (x.steps <= items || x.columns >= processors * kScanThreads) return dim3(kScanThreads / 2);
  int64_t width = power_of_two(x.columns, kWidth);
  while (width > sector && x.columns < processors * width) width /= 2;
  while (width > 1 && x.steps > items * kScanThreads / width && blocks(x.columns, width / 2) <= processors) width /= 2;
  const int64_t chunks = power_of_two(blocks(x.steps, items), kScanThreads / width);
  while (width * chunks < 32) width *= 2;  // at least one warp
  return dim3(unsigned(width), unsigned(chunks));
}

template <template <class> class Op>
void launch_scan(DType dtype, const Trajectory& x, void* stream) {
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    const dim3 block = scan_block(x, kScanItems<Op<Column<T>>>, sizeof(T));
    KERNEL_LAUNCH((scan<Op, T>), grid_of(blocks(x.columns, block.x)), block, 0, static_cast<cudaStream_t>(stream), x);
  });
}
// Scans in which invalid steps may carry.
template <template <class> class Op>
void launch_carrying_scan(DType dtype, const Trajectory& x, void* stream) {
  if (!x.carries) return launch_scan<Op>(dtype, x, stream);
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    const dim3 block = scan_block(x, kScanItems<Op<Column<T, true>>>, sizeof(T));
    KERNEL_LAUNCH((carrying_scan<Op, T>), grid_of(blocks(x.columns, block.x)), block, 0,
                  static_cast<cudaStream_t>(stream), x);
  });
}

// The columns and steps of a block: up to 16 steps, whose windows overlap, and as many columns as the rest of the
// threads can use.
dim3 window_block(const Trajectory& x) {
  constexpr int64_t kSteps = 16;
  const int64_t width = power_of_two(x.columns, kWindowThreads / power_of_two(x.steps, kSteps));
  return dim3(unsigned(width), unsigned(kWindowThreads / width));
}

template <template <class> class Window>
void launch_windows(DType dtype, const Trajectory& x, void* stream) {
  const dim3 block = window_block(x), grid = grid_of(blocks(x.columns, block.x) * blocks(x.steps, block.y));
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    if (x.carries)
      KERNEL_LAUNCH((carrying_windows<Window, T>), grid, block, 0, static_cast<cudaStream_t>(stream), x);
    else
      KERNEL_LAUNCH((windows<Window, T>), grid, block, 0, static_cast<cudaStream_t>(stream), x);
  });
}

}  // namespace

const ReturnsLaunches& returns_launches() {
  static constexpr ReturnsLaunches launches = {
      launch_carrying_scan<scans::Gae>,    launch_carrying_scan<scans::GaeGradient>,
      launch_carrying_scan<scans::Lambda>, launch_carrying_scan<scans::LambdaGradient>,
      launch_windows<scans::NStep>,        launch_windows<scans::NStepGradient>,
      launch_scan<scans::Vtrace>,          launch_scan<scans::Retrace>,
  };
  return launches;
}

}  // namespace automl_ext
