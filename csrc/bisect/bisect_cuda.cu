// Launches of alpha-entmax, normmax and budget-sparsemax.
#include "bisect_cuda.h"

#include "../common/cuda/launch.cuh"
#include "bisect_backward_kernels.cuh"

namespace automl_ext {
namespace {

// Rows of at most kBisectShortRow elements are in the registers of a warp or less; longer ones are read on each pass.
template <class Launch>
void for_bisect_rows(int64_t n, const Launch& launch) {
  if (n <= 8) return launch(Int<1>(), Int<8>());
  if (n <= 32) return launch(Int<8>(), Int<4>());
  return launch(Int<32>(), Int<8>());
}

}  // namespace

void launch_bisect(int map, DType dtype, const void* x, const BisectParameter& parameter, void* p, int64_t rows,
                   int64_t n, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    const auto* in = static_cast<const T*>(x);
    auto* out = static_cast<T*>(p);
    const RowParameters<Compute<T>> parameters(parameter);
    if (n > kBisectShortRow) {
      KERNEL_LAUNCH((bisect_long_rows<T>), grid_of(rows), long_row_block(n), 0, stream, map, in, parameters, out, rows,
                    n);
      return;
    }
    for_bisect_rows(n, [&](auto lanes, auto items) {
      KERNEL_LAUNCH((bisect_short_rows<T, lanes(), items()>), short_rows_grid(rows, lanes()), kShortRowThreads, 0,
                    stream, map, in, parameters, out, rows, n);
    });
  });
}

void launch_bisect_backward(int map, DType dtype, const void* grad, const void* p, const BisectParameter& parameter,
                            void* dx, void* of_parameter, int64_t rows, int64_t n, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    const auto *g = static_cast<const T*>(grad), *y = static_cast<const T*>(p);
    auto* out = static_cast<T*>(dx);
    auto* of_rows = static_cast<Compute<T>*>(of_parameter);
    const RowParameters<Compute<T>> parameters(parameter);
    if (n > kBisectShortRow) {
      KERNEL_LAUNCH((bisect_backward_long_rows<T>), grid_of(rows), long_row_block(n), 0, stream, map, g, y, parameters,
                    out, of_rows, rows, n);
      return;
    }
    for_bisect_rows(n, [&](auto lanes, auto items) {
      KERNEL_LAUNCH((bisect_backward_short_rows<T, lanes(), items()>), short_rows_grid(rows, lanes()), kShortRowThreads,
                    0, stream, map, g, y, parameters, out, of_rows, rows, n);
    });
  });
}

}  // namespace automl_ext
