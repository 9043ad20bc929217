// Launches of Gumbel sampling and its gradients.
#include "gumbel_cuda.h"

#include "../entmax/entmax_huge_cuda.cuh"
#include "gumbel_backward_kernels.cuh"
#include "gumbel_huge_kernels.cuh"

namespace automl_ext {
namespace {

constexpr int64_t kTileElements = 2048, kEnoughBlocks = 512;

// Divides the rows into tiles, one for each block. In a pass, a block processes as many rows as it has threads for. A tile
// consists of whole passes: of about kTileElements elements, or of fewer if there would be too few blocks.
RowTiles short_row_tiles(const GumbelCudaRows& rows, int lanes) {
  const int64_t pass = kShortRowThreads / lanes, passes_of_group = (rows.rows_per_group + pass - 1) / pass;
  const int64_t most = std::min(kTileElements / (pass * rows.n), passes_of_group * rows.groups() / kEnoughBlocks);
  const int64_t passes = std::max<int64_t>(1, std::min(most, passes_of_group));
  const int64_t per_group = (passes_of_group + passes - 1) / passes;
  return {per_group * rows.groups(), per_group, int(passes * pass)};
}

// Calls launch(lanes, items) with the team size and registers per thread for rows of n elements, or longest() for long rows.
template <class Launch, class Longest>
void for_row_length(int64_t n, const Launch& launch, const Longest& longest) {
  if (n <= 4) return launch(Int<1>(), Int<4>());
  if (n <= 8) return launch(Int<1>(), Int<8>());
  if (n <= 32) return launch(Int<8>(), Int<4>());
  if (n <= 128) return launch(Int<32>(), Int<4>());
  longest();
}

RowTiles column_tiles(const GumbelCudaRows& rows, int columns) {
  const int64_t per_group = blocks(rows.rows_per_group, columns);
  return {per_group * rows.groups(), per_group, columns};
}

template <bool entmax, class T>
void sample_columns(const GumbelCudaRows& rows, const T* x, const GumbelOutputs<T>& out, cudaStream_t stream) {
  for_columns<128>(rows.n, [&](auto warps, auto items) {
    using Team = ColumnTeam<warps()>;
    const RowTiles tiles = column_tiles(rows, Team::columns);
    const int64_t bytes = (Skewed()(int(noise_size(Team::columns * rows.n))) + 1) * int64_t(sizeof(Compute<T>));
    static SharedMemoryAllowance allowance;
    if (!allow_shared_memory(gumbel_columns<entmax, T, warps(), items()>, bytes, allowance, kStaticColumnMemory))
      return;
    KERNEL_LAUNCH((gumbel_columns<entmax, T, warps(), items()>), grid_of(tiles.count), Team::threads, size_t(bytes),
                  stream, rows, tiles, x, out);
  });
}

template <class T>
int64_t noise_bytes(int64_t n) {
  return noise_size(n) * int64_t(sizeof(Compute<T>));
}

// The rows in parts, and z in soft if that has its type. Without soft, only the summaries are needed.
template <class T, int threads>
HugeRows<Compute<T>> huge_gumbel_rows(const GumbelCudaRows& rows, T* soft, Carver& memory) {
  using C = Compute<T>;
  const C* z = nullptr;
  if constexpr (std::is_same_v<T, C>)
    z = soft;
  else if (soft)
    z = memory.take<C>(rows.count * rows.n);
  return huge_rows(z, rows.count, rows.n, huge_parts(rows.n + kWindow - 1, threads), threads, memory);
}

template <bool entmax, class T, int threads = kHugeThreads>
void sample_huge(const GumbelCudaRows& rows, const T* x, const GumbelOutputs<T>& out, void* workspace,
                 cudaStream_t stream) {
  Carver memory(workspace);
  const auto huge = huge_gumbel_rows<T, threads>(rows, out.soft, memory);
  const int64_t parts = rows.count * huge.parts;
  KERNEL_LAUNCH((gumbel_huge_parts<entmax, T, threads>), grid_of(parts), threads, 0, stream, rows, huge, x,
                const_cast<Compute<T>*>(huge.values));
  if (entmax && out.soft) launch_huge_thresholds<2>(huge, rows.rows_per_group, kWindow, stream);
  KERNEL_LAUNCH((gumbel_huge_rows<entmax, T, threads>), resident_grid(parts, 1024 / threads), threads, 0, stream, rows,
                huge, out);
}

template <bool entmax, class T>
void sample(const GumbelCudaRows& rows, const T* x, const GumbelOutputs<T>& out, void* workspace, cudaStream_t stream) {
  if (rows.inner > 1) return sample_columns<entmax>(rows, x, out, stream);
  const auto in_tiles = [&](auto lanes, auto items) {
    const RowTiles tiles = short_row_tiles(rows, lanes());
    const size_t bytes = size_t(noise_size(tiles.rows * rows.n)) * sizeof(Compute<T>);
    KERNEL_LAUNCH((gumbel_short_rows<entmax, T, lanes(), items()>), grid_of(tiles.count), kShortRowThreads, bytes,
                  stream, rows, tiles, x, out);
  };
  const auto in_blocks = [&] {
    if (rows.n <= kShortRow) return in_tiles(Int<32>(), Int<0>());
    const int64_t bytes = noise_bytes<T>(rows.n);
    if (bytes > shared_memory_limit()) return sample_huge<entmax>(rows, x, out, workspace, stream);
    static SharedMemoryAllowance allowance;
    if (!allow_shared_memory(gumbel_long_rows<entmax, T>, bytes, allowance)) return;
    KERNEL_LAUNCH((gumbel_long_rows<entmax, T>), grid_of(rows.count), long_row_block(rows.n), size_t(bytes), stream,
                  rows, x, out);
  };
  for_row_length(rows.n, in_tiles, in_blocks);
}

// Like for_row_length, with rows of up to 512 elements: two rows per warp fit the registers.
template <class Launch, class Longest>
void for_backward_row_length(int64_t n, const Launch& launch, const Longest& longest) {
  for_row_length(n, launch, [&] { n <= 512 ? launch(Int<32>(), Int<16>()) : longest(); });
}

template <bool entmax, class T>
void backward(const GumbelCudaRows& rows, const T* grad, const T* y, T* dx, double* partials, cudaStream_t stream) {
  if (rows.inner > 1) {
    for_read_columns(rows.n, [&](auto warps) {
      using Team = ColumnTeam<warps()>;
      const RowTiles tiles = column_tiles(rows, Team::columns);
      KERNEL_LAUNCH((gumbel_backward_columns<entmax, T, warps()>), grid_of(tiles.count), Team::threads, 0, stream, rows,
                    tiles, grad, y, dx, partials);
    });
    return;
  }
  const auto in_tiles = [&](auto lanes, auto items) {
    const RowTiles tiles = short_row_tiles(rows, lanes());
    KERNEL_LAUNCH((gumbel_backward_short_rows<entmax, T, lanes(), items()>), grid_of(tiles.count), kShortRowThreads, 0,
                  stream, rows, tiles, grad, y, dx, partials);
  };
  const auto in_blocks = [&] {
    KERNEL_LAUNCH((gumbel_backward_long_rows<entmax, T>), grid_of(rows.count), long_row_block(rows.n), 0, stream, rows,
                  grad, y, dx, partials);
  };
  for_backward_row_length(rows.n, in_tiles, in_blocks);
}

// Calls launch(entmax as a type, a value of the element type).
template <class Launch>
void for_kind(bool entmax, DType dtype, const Launch& launch) {
  for_dtype(dtype,
            [&](auto element) { entmax ? launch(std::true_type(), element) : launch(std::false_type(), element); });
}

}  // namespace

int64_t gumbel_workspace(DType dtype, const GumbelCudaRows& rows, void* soft) {
  Carver memory(nullptr);
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    if (rows.inner == 1 && rows.n > kShortRow && noise_bytes<T>(rows.n) > shared_memory_limit())
      huge_gumbel_rows<T, kHugeThreads>(rows, static_cast<T*>(soft), memory);
  });
  return memory.bytes();
}

void launch_gumbel(bool entmax, DType dtype, const GumbelCudaRows& rows, const void* x, void* soft, void* one_hot,
                   int64_t* index, void* workspace, void* stream) {
  for_kind(entmax, dtype, [&](auto kind, auto element) {
    using T = decltype(element);
    const GumbelOutputs<T> out{static_cast<T*>(soft), static_cast<T*>(one_hot), index};
    sample<kind()>(rows, static_cast<const T*>(x), out, workspace, static_cast<cudaStream_t>(stream));
  });
}

int64_t gumbel_tau_partials(const GumbelCudaRows& rows) {
  int64_t count = rows.count;
  if (rows.inner > 1) {
    for_read_columns(rows.n, [&](auto warps) { count = column_tiles(rows, ColumnTeam<warps()>::columns).count; });
    return count;
  }
  const auto in_tiles = [&](auto lanes, auto) { count = short_row_tiles(rows, lanes()).count; };
  for_backward_row_length(rows.n, in_tiles, [] {});
  return count;
}

void launch_gumbel_backward(bool entmax, DType dtype, const GumbelCudaRows& rows, const void* grad, const void* y,
                            void* dx, double* partials, void* dtau, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  for_kind(entmax, dtype, [&](auto kind, auto element) {
    using T = decltype(element);
    backward<kind()>(rows, static_cast<const T*>(grad), static_cast<const T*>(y), static_cast<T*>(dx),
                     dtau ? partials : nullptr, stream);
  });
  if (!dtau) return;
  const int64_t taus = rows.tau_step ? rows.groups() : 1, per_tau = gumbel_tau_partials(rows) / taus;
  KERNEL_LAUNCH(gumbel_tau_gradient, grid_of(taus), long_row_block(per_tau), 0, stream, partials, per_tau, taus, dtau,
                rows.tau_dtype);
}

}  // namespace automl_ext
