// Gumbel-softmax, Gumbel-entmax and Gumbel-argmax on CUDA, as gumbel_kernel.inc. Noise is written to shared memory in the order
// of the random stream and read from there in rows, with the logits.
#pragma once
#include "../common/cuda/rows.cuh"
#include "../entmax/entmax_kernels.cuh"
#include "gumbel_cuda.h"
#include "gumbel_noise.cuh"

namespace automl_ext {

// Tiles of rows of one group.
struct RowTiles {
  int64_t count, per_group;
  int rows;
};

// The position of a tile (or a single row): its group, its first row in the group and among all rows.
struct TilePlace {
  int64_t group, row_in_group, row;
  __device__ __forceinline__ TilePlace(const GumbelCudaRows& rows, int64_t tile, int64_t per_group, int rows_per_tile) {
    group = tile < per_group ? 0 : tile / per_group;  // usually there is one group; avoid the slow division
    row_in_group = (tile - group * per_group) * rows_per_tile;
    row = group * rows.rows_per_group + row_in_group;
  }
};

__device__ __forceinline__ double load_number(DType dtype, const void* p, int64_t i) {
  switch (dtype) {
    case kFloat64: return static_cast<const double*>(p)[i];
    case kFloat32: return widen(static_cast<const float*>(p)[i]);
    case kBFloat16: return widen(static_cast<const bfloat16*>(p)[i]);
    default: return widen(static_cast<const float16*>(p)[i]);
  }
}
__device__ __forceinline__ void store_number(DType dtype, void* p, int64_t i, double value) {
  switch (dtype) {
    case kFloat64: static_cast<double*>(p)[i] = value; return;
    case kFloat32: static_cast<float*>(p)[i] = float(value); return;
    case kBFloat16: static_cast<bfloat16*>(p)[i] = narrow<bfloat16>(float(value)); return;
    default: static_cast<float16*>(p)[i] = narrow<float16>(float(value)); return;
  }
}

// NaN for a temperature that is not positive, which makes its rows NaN. One below the smallest normal number counts as that
// number: 0 · (1/τ) must not be NaN.
template <class C>
__device__ __forceinline__ C valid_tau(const GumbelCudaRows& rows, int64_t group) {
  const double tau = rows.taus ? load_number(rows.tau_dtype, rows.taus, group * rows.tau_step) : rows.tau;
  if (!(tau > 0)) return not_a_number<C>();
  return C(tau) < kSmallestNormal<C> ? kSmallestNormal<C> : C(tau);
}
// 1/τ, clamped to be finite and positive, because the product with the largest logit (0) and masked ones (−inf) must not be NaN.
template <class C>
__device__ __forceinline__ C inverse_tau(const GumbelCudaRows& rows, int64_t group) {
  constexpr C least = kSmallestNormal<C>, most = kLargest<C>;
  const C inverse = 1 / valid_tau<C>(rows, group);
  return inverse > most ? most : inverse < least ? least : inverse;
}

template <class T>
struct GumbelOutputs {
  T *soft, *one_hot;
  int64_t* index;
};

// The largest value of a row and its lowest index; NaN counts as the largest.
template <class Row>
struct Largest {
  using C = typename Row::C;
  using Index = typename Row::Index;
  C value;
  Index index;

  template <class Team>
  __device__ __forceinline__ Largest(const Team& team, const Row& row) {
    constexpr Index none = kLargest<Index>;
    C best = -infinity<C>();
    Index at = none;
    row.each_indexed([&](Index i, C x) {
      const bool better = best == best && !(x <= best);
      best = better ? x : best;
      at = better ? i : at;
    });
    value = team.largest(best);
    index = team.smallest(best == value || (best != best && value != value) ? at : none);
    if (value == -infinity<C>()) index = 0;
  }
};

// exp(scale·x) over its sum, given the largest x of the row.
template <class T, class Team, class Row, class C>
__device__ __forceinline__ void softmax_below(const Team& team, Row& row, C top, C scale, T* out) {
  typename Row::Accumulator sum;
  // In a row of only −inf, −inf − (−inf) gives NaN, as in torch.softmax.
  row.exponentiate(top, scale, [&](C e) { sum.add(e); }, [&] { sum.end_chain(); });
  const C share = C(1 / team.sum(typename Row::Total(sum.value())));
  row.store(out, [&](C e) { return e * share; });
}

// Stores 1 at the index, else 0. NaN rows stay NaN; an entmax row of only −inf stays 0.
template <bool entmax, class T, class Row, class C, class Index>
__device__ __forceinline__ void store_one_hot(const Row& row, C top, C inverse_tau, Index index, T* out) {
  const bool all_masked = top == -infinity<C>();
  const bool is_nan = is_nan_row(top, inverse_tau) || (!entmax && all_masked);
  const C elsewhere = is_nan ? not_a_number<C>() : C(0), chosen = is_nan || all_masked ? elsewhere : C(1);
  row.write(out, [&](typename Row::Index i) { return i == index ? chosen : elsewhere; });
}

// Computes the requested outputs of a row of perturbed logits. `at` is its index, `start` the place of its first element; a
// missing row has length 0.
template <bool entmax, class T, class Team, class Row, class C>
__device__ __forceinline__ void gumbel_row(const Team& team, Row& row, C inverse_tau, const GumbelOutputs<T>& out,
                                           int64_t at, int64_t start, bool exists) {
  C top;
  typename Row::Index index = 0;
  if (out.index || out.one_hot) {
    const Largest<Row> largest(team, row);
    top = largest.value;
    index = largest.index;
    if (out.index && exists && team.rank() == 0) out.index[at] = index;
    if (!out.soft) return;
  } else {
    top = largest_of(team, row);
  }
  if constexpr (entmax)
    entmax_below<2>(team, row, top, C(0.5) * inverse_tau, out.soft + start);
  else
    softmax_below(team, row, top, inverse_tau, out.soft + start);
  if (out.one_hot) store_one_hot<entmax>(row, top, inverse_tau, index, out.one_hot + start);
}

// The elements of shared memory for the noise of `count` consecutive elements.
inline int64_t noise_size(int64_t count) { return count + 2 * kWindow; }

// kLanes threads per row, with up to kLanes·kItems values in registers, or in shared memory if kItems is 0. The dynamic shared
// memory holds the noise of a tile.
template <bool entmax, class T, int kLanes, int kItems>
__global__ void __launch_bounds__(128, 4)
    gumbel_short_rows(GumbelCudaRows rows, RowTiles tiles, const T* x, GumbelOutputs<T> out) {
  using C = Compute<T>;
  using Team = WarpTeam<kLanes>;
  using Row = std::conditional_t<kItems == 0, SharedRow<T, Team, C>, RegisterRow<T, Team, kItems>>;
  KERNEL_DYNAMIC_SHARED(C, noise);
  const Team team;
  const int n = int(rows.n), rows_per_pass = int(blockDim.x) / kLanes;
  const bool packed =
      packs_fit<Row::width>(x, n) && packs_fit<Row::width>(out.soft, n) && packs_fit<Row::width>(out.one_hot, n);
  for (int64_t t = blockIdx.x; t < tiles.count; t += gridDim.x) {
    const TilePlace place(rows, t, tiles.per_group, tiles.rows);
    const int64_t left = rows.rows_per_group - place.row_in_group;
    const int count = left < tiles.rows ? int(left) : tiles.rows;
    const int64_t first_element = place.row_in_group * n;
    sample_noise(int(threadIdx.x), int(blockDim.x), uint64_t(rows.seeds[place.group * rows.seed_step]), first_element,
                 count * n, noise);
    C* const tile = noise + first_element % kWindow;
    const C inverse = inverse_tau<C>(rows, place.group);
    __syncthreads();
    for (int first = 0; first < count; first += rows_per_pass) {
      const int r = first + int(threadIdx.x) / kLanes, length = r < count ? n : 0;
      const T* const logits = x + (place.row + r) * n;
      if constexpr (kItems == 0) {
        Row row(team, tile + r * n, length, packed);
        row.combine(logits, [](C x_i, C log) { return add_noise(x_i, log); });
        gumbel_row<entmax>(team, row, inverse, out, place.row + r, (place.row + r) * n, r < count);
      } else {
        Row row(team, logits, length, packed);
        row.combine(tile + r * n, [](C x_i, C log) { return add_noise(x_i, log); });
        gumbel_row<entmax>(team, row, inverse, out, place.row + r, (place.row + r) * n, r < count);
      }
    }
    __syncthreads();  // before the next tile is sampled
  }
}

// Rows whose elements are rows.inner apart, as columns of up to kWarps·kItems values in registers. A tile has as many as the
// block; its noise is consecutive elements of the stream.
template <bool entmax, class T, int kWarps, int kItems>
__global__ void __launch_bounds__(ColumnTeam<kWarps>::threads, (kColumnBlocks<kWarps>))
    gumbel_columns(GumbelCudaRows rows, RowTiles tiles, const T* x, GumbelOutputs<T> out) {
  using C = Compute<T>;
  using Team = ColumnTeam<kWarps>;
  KERNEL_DYNAMIC_SHARED(C, noise);
  const Team team{int(rows.inner)};
  const Skewed skewed;
  const int n = int(rows.n), r = team.column();
  for (int64_t t = blockIdx.x; t < tiles.count; t += gridDim.x) {
    const TilePlace place(rows, t, tiles.per_group, Team::columns);
    const int64_t left = rows.rows_per_group - place.row_in_group, first_element = place.row_in_group * n;
    const int count = left < Team::columns ? int(left) : Team::columns;
    sample_noise(int(threadIdx.x), int(blockDim.x), uint64_t(rows.seeds[place.group * rows.seed_step]), first_element,
                 count * n, noise, skewed);
    const int64_t start = team.start(place.row + r, n);
    RegisterRow<T, Team, kItems> row(team, x + start, r < count ? n : 0, false);
    const C inverse = inverse_tau<C>(rows, place.group);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      const int i = row.index(j);
      if (i < row.n) row.values[j] = add_noise(row.values[j], noise[skewed(int(first_element % kWindow) + r * n + i)]);
    }
    gumbel_row<entmax>(team, row, inverse, out, place.row + r, start, r < count);
    __syncthreads();  // before the next tile is sampled
  }
}

// One block per row, in shared memory.
template <bool entmax, class T>
__global__ void __launch_bounds__(kRowThreads, 1)
    gumbel_long_rows(GumbelCudaRows rows, const T* x, GumbelOutputs<T> out) {
  using C = Compute<T>;
  KERNEL_DYNAMIC_SHARED(C, noise);
  const BlockTeam team;
  constexpr int width = MemoryRow<T, BlockTeam>::width;
  const int64_t n = rows.n;
  const bool packed = packs_fit<width>(x, n) && packs_fit<width>(out.soft, n) && packs_fit<width>(out.one_hot, n);
  for (int64_t at = blockIdx.x; at < rows.count; at += gridDim.x) {
    const TilePlace place(rows, at, rows.rows_per_group, 1);
    const int64_t first_element = place.row_in_group * n;
    sample_noise(team.rank(), team.size(), uint64_t(rows.seeds[place.group * rows.seed_step]), first_element, int(n),
                 noise);
    const C inverse = inverse_tau<C>(rows, place.group);
    __syncthreads();
    SharedRow<T, BlockTeam> row(team, noise + first_element % kWindow, n, packed);
    row.combine(x + at * n, [](C x_i, C log) { return add_noise(x_i, log); });
    gumbel_row<entmax>(team, row, inverse, out, at, at * n, true);
    __syncthreads();  // before the next row is sampled
  }
}

}  // namespace automl_ext
