// Launches of entmax-1.5 and sparsemax.
#include "entmax_cuda.h"

#include "../common/cuda/launch.cuh"
#include "entmax_huge_cuda.cuh"

namespace automl_ext {
namespace {

// Rows of at most kWarpRow elements are divided among the lanes of a warp or less, rows of at most kMediumRow among the
// threads of a block, with kMediumItems in the registers of each; longer ones are in shared memory.
constexpr int64_t kWarpRow = 256, kMediumRow = 4096;
constexpr int kMediumItems = 16;
constexpr int64_t kShortBackwardRow = 512;  // two rows fit the registers

template <class T>
bool fits_shared_memory(int64_t n) {
  return n * int64_t(sizeof(Compute<T>)) <= shared_memory_limit();
}

// The rows in parts, a block of `threads` threads for each, in three launches.
template <int power, class T, int threads = kHugeThreads>
void forward_huge(const T* x, T* p, int64_t rows, int64_t n, void* workspace, cudaStream_t stream) {
  Carver memory(workspace);
  const HugeRows<T> huge = huge_rows(x, rows, n, huge_parts(n, threads), threads, memory);
  const dim3 grid = grid_of(rows * huge.parts);
  KERNEL_LAUNCH((entmax_huge_parts<power, T, threads>), grid, threads, 0, stream, huge);
  launch_huge_thresholds<power>(huge, 1, 1, stream);
  KERNEL_LAUNCH((entmax_huge_rows<power, T, threads>), grid, threads, 0, stream, huge, p);
}

template <int power, class T>
void forward(const T* x, T* p, int64_t rows, int64_t n, void* workspace, int64_t inner, cudaStream_t stream) {
  if (inner > 1) {
    for_columns<sizeof(T) == 8 ? 128 : 512>(n, [&](auto warps, auto items) {
      KERNEL_LAUNCH((entmax_columns<power, T, warps(), items()>), columns_grid<warps()>(rows),
                    ColumnTeam<warps()>::threads, 0, stream, x, p, rows, n, inner);
    });
    return;
  }
  if (n <= kWarpRow) {
    for_short_rows(n, [&](auto lanes, auto items) {
      if constexpr (lanes() * items() <= kWarpRow)
        KERNEL_LAUNCH((entmax_short_rows<power, T, lanes(), items()>), short_rows_grid(rows, lanes()), kShortRowThreads,
                      0, stream, x, p, rows, n);
    });
    return;
  }
  if (n <= kMediumRow) {
    const auto launch = [&](auto threads) {
      KERNEL_LAUNCH((entmax_medium_rows<power, T, threads(), kMediumItems>), grid_of(rows), threads(), 0, stream, x, p,
                    rows, n);
    };
    if (n <= 32 * kMediumItems) return launch(Int<32>());
    if (n <= 64 * kMediumItems) return launch(Int<64>());
    return n <= 128 * kMediumItems ? launch(Int<128>()) : launch(Int<256>());
  }
  if (!fits_shared_memory<T>(n)) return forward_huge<power>(x, p, rows, n, workspace, stream);
  const int64_t bytes = n * int64_t(sizeof(Compute<T>));
  static SharedMemoryAllowance allowance;
  if (!allow_shared_memory(entmax_long_rows<power, T>, bytes, allowance)) return;
  KERNEL_LAUNCH((entmax_long_rows<power, T>), grid_of(rows), long_row_block(n), size_t(bytes), stream, x, p, rows, n);
}

template <int power, class T>
void backward(const T* grad, const T* p, T* dx, int64_t rows, int64_t n, int64_t inner, cudaStream_t stream) {
  if (inner > 1) {
    for_read_columns(n, [&](auto warps) {
      KERNEL_LAUNCH((entmax_backward_columns<power, T, warps()>), columns_grid<warps()>(rows),
                    ColumnTeam<warps()>::threads, 0, stream, grad, p, dx, rows, n, inner);
    });
    return;
  }
  if (n <= kShortBackwardRow) {
    for_short_rows(n, [&](auto lanes, auto items) {
      KERNEL_LAUNCH((entmax_backward_short_rows<power, T, lanes(), items()>), short_rows_grid(rows, lanes()),
                    kShortRowThreads, 0, stream, grad, p, dx, rows, n);
    });
    return;
  }
  KERNEL_LAUNCH((entmax_backward_long_rows<power, T>), grid_of(rows), long_row_block(n), 0, stream, grad, p, dx, rows,
                n);
}

}  // namespace

int64_t entmax_workspace(DType dtype, int64_t rows, int64_t n, int64_t inner) {
  Carver memory(nullptr);
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    const T* const none = nullptr;
    if (inner == 1 && !fits_shared_memory<T>(n))
      huge_rows(none, rows, n, huge_parts(n, kHugeThreads), kHugeThreads, memory);
  });
  return memory.bytes();
}

void launch_entmax(int power, DType dtype, const void* x, void* p, int64_t rows, int64_t n, void* workspace,
                   void* stream_, int64_t inner) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    const auto* in = static_cast<const T*>(x);
    auto* out = static_cast<T*>(p);
    power == 2 ? forward<2>(in, out, rows, n, workspace, inner, stream)
               : forward<1>(in, out, rows, n, workspace, inner, stream);
  });
}

void launch_entmax_backward(int power, DType dtype, const void* grad, const void* p, void* dx, int64_t rows, int64_t n,
                            void* stream_, int64_t inner) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    const auto *g = static_cast<const T*>(grad), *y = static_cast<const T*>(p);
    auto* out = static_cast<T*>(dx);
    power == 2 ? backward<2>(g, y, out, rows, n, inner, stream) : backward<1>(g, y, out, rows, n, inner, stream);
  });
}

}  // namespace automl_ext
