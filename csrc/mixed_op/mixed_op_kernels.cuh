// CUDA kernels of mixed-op aggregation: each array is read once; sums stay in registers. The n elements are divided
// into tiles, one per block: tiles of packs where all arrays allow 16-byte loads, tiles of single elements for the
// rest.
#pragma once
#include "../common/cuda/rows.cuh"
#include "../common/cuda/team.cuh"
#include "../common/cuda/types.cuh"

namespace automl_ext {

constexpr int kMixedOpInputs = 64;  // per launch
constexpr int kMixedOpThreads = 128;
// Loads in flight per thread: number of packs per input, and number of inputs.
constexpr int kForwardPacks = 2, kForwardInputs = 4;
constexpr int kForwardBlocks = 6;  // on a multiprocessor
constexpr int kBackwardPacks = 4, kBackwardInputs = 2;

// The inputs of a launch, passed by value as a kernel parameter.
struct MixedOpInputs {
  const void* x[kMixedOpInputs];
  void* dx[kMixedOpInputs];          // null where no gradient is needed
  int64_t position[kMixedOpInputs];  // index of the input's weight
  int count;
};

// One thread's part of a tile: kPacks packs. Adjacent threads read adjacent packs.
template <class T, int width_, int kPacks>
struct TilePart {
  static constexpr int width = width_;
  using Values = Pack<T, width>;
  // Packs are loaded as 32-bit words: the compiler would put each half-precision element into a register of its own.
  using Word = std::conditional_t<(sizeof(Values) < 4), uint16_t, uint32_t>;
  using Words = Pack<Word, int(sizeof(Values) / sizeof(Word))>;
  const int64_t first, end;  // the thread's first element; the end of the elements covered by tiles of this width

  __device__ __forceinline__ TilePart(int64_t tile_begin, int64_t end_)
      : first(tile_begin + int64_t(threadIdx.x) * width), end(end_) {}
  __device__ __forceinline__ int64_t index(int pack) const { return first + int64_t(pack) * kMixedOpThreads * width; }
  __device__ __forceinline__ bool has(int pack) const { return index(pack) < end; }

  __device__ __forceinline__ void load(const T* x, Words (&packs)[kPacks]) const {
#pragma unroll
    for (int u = 0; u < kPacks; ++u) packs[u] = has(u) ? *reinterpret_cast<const Words*>(x + index(u)) : Words{};
  }
  static __device__ __forceinline__ Compute<T> value(const Words& pack, int j) {
    Values values;
    memcpy(&values, &pack, sizeof(values));
    return widen(values.values[j]);
  }
  // Stores f(u, j) as element j of pack u.
  template <class F>
  __device__ __forceinline__ void store(T* y, const F& f) const {
#pragma unroll
    for (int u = 0; u < kPacks; ++u) {
      Values pack;
#pragma unroll
      for (int j = 0; j < width; ++j) pack.values[j] = narrow<T>(f(u, j));
      if (has(u)) store_pack(y + index(u), pack);
    }
  }
  // Calls f(i, u, j) for element j of pack u, which is element i of the array.
  template <class F>
  __device__ __forceinline__ void each(const F& f) const {
#pragma unroll
    for (int u = 0; u < kPacks; ++u) {
#pragma unroll
      for (int j = 0; j < width; ++j)
        if (has(u)) f(index(u) + j, u, j);
    }
  }
};

template <class T, int kPacks>
struct MixedOpTiles {
  static constexpr int width = pack_width<T, 8>();
  static constexpr int64_t packs = kMixedOpThreads * kPacks;  // per tile
  int64_t n, in_packs;        // number of elements; the first in_packs of them are read in packs
  int64_t pack_tiles, count;  // number of tiles of packs; of all tiles

  MixedOpTiles(int64_t n_, bool aligned)
      : n(n_),
        in_packs(aligned ? n / width * width : 0),
        pack_tiles((in_packs + packs * width - 1) / (packs * width)),
        count(pack_tiles + (n - in_packs + packs - 1) / packs) {}

  // Calls visit(tile, part) for each tile of this block.
  template <class Visit>
  __device__ __forceinline__ void each(const Visit& visit) const {
    for (int64_t tile = blockIdx.x; tile < count; tile += gridDim.x) {
      if (tile < pack_tiles)
        visit(tile, TilePart<T, width, kPacks>(tile * packs * width, in_packs));
      else
        visit(tile, TilePart<T, 1, kPacks>(in_packs + (tile - pack_tiles) * packs, n));
    }
  }
};

// y = before + Σ weights[position[k]]·x[k]; before null means 0. If `after` is not null the sum is stored there instead
// of in y: between the launches of a call, sums stay in the compute type. before and after may be the same array.
template <class T, class W>
__global__ void __launch_bounds__(kMixedOpThreads, kForwardBlocks)
    mixed_op_forward(MixedOpInputs in, const W* weights, const Compute<T>* before, Compute<T>* after, T* y,
                     MixedOpTiles<T, kForwardPacks> tiles) {
  using C = Compute<T>;
  // Compact the inputs whose weight is not 0, so that the loads below have no gaps. The others are not read: they may
  // hold any values.
  KERNEL_SHARED(int, which, kMixedOpInputs);
  KERNEL_SHARED(C, w, kMixedOpInputs);
  KERNEL_SHARED(C, all_weights, kMixedOpInputs);
  const int k = int(threadIdx.x);
  if (k < kMixedOpInputs) {
    all_weights[k] = k < in.count ? C(widen(weights[in.position[k]])) : C(0);
    which[k] = 0;
    w[k] = 0;
  }
  __syncthreads();
  int used = 0, place = 0;
  for (int j = 0; j < in.count; ++j) {
    if (j == k) place = used;
    used += all_weights[j] != 0;
  }
  if (k < in.count && all_weights[k] != 0) {
    which[place] = k;
    w[place] = all_weights[k];
  }
  __syncthreads();

  tiles.each([&](int64_t, const auto& part) {
    using Part = std::decay_t<decltype(part)>;
    C sums[kForwardPacks][Part::width] = {};
    if (before) part.each([&](int64_t i, int u, int j) { sums[u][j] = before[i]; });
    for (int k = 0; k < used; k += kForwardInputs) {
      const T* x[kForwardInputs];
#pragma unroll
      for (int t = 0; t < kForwardInputs; ++t) x[t] = static_cast<const T*>(in.x[which[k + t]]);
      typename Part::Words packs[kForwardInputs][kForwardPacks] = {};
#pragma unroll
      for (int t = 0; t < kForwardInputs; ++t)
        if (k + t < used) part.load(x[t], packs[t]);
#pragma unroll
      for (int t = 0; t < kForwardInputs; ++t) {
#pragma unroll
        for (int u = 0; u < kForwardPacks; ++u) {
#pragma unroll
          for (int j = 0; j < Part::width; ++j) sums[u][j] += w[k + t] * Part::value(packs[t][u], j);
        }
      }
    }
    if (after)
      part.each([&](int64_t i, int u, int j) { after[i] = sums[u][j]; });
    else
      part.store(y, [&](int u, int j) { return sums[u][j]; });
  });
}

// dx[k] = weights[position[k]]·grad where dx[k] is not null. If dots is not null, dots[k][tile] = ⟨grad, x[k]⟩ over the
// tile.
template <class T, class W>
__global__ void __launch_bounds__(kMixedOpThreads, 5)
    mixed_op_backward(MixedOpInputs in, const T* grad, const W* weights, double* dots,
                      MixedOpTiles<T, kBackwardPacks> tiles) {
  using C = Compute<T>;
  constexpr int kWarps = kMixedOpThreads / 32;
  KERNEL_SHARED(C, warp_dots, kMixedOpInputs * kWarps);
  const int thread = int(threadIdx.x);
  tiles.each([&](int64_t tile, const auto& part) {
    using Part = std::decay_t<decltype(part)>;
    typename Part::Words g[kBackwardPacks];
    part.load(grad, g);
    for (int k = 0; k < in.count; k += kBackwardInputs) {
      C w[kBackwardInputs];
#pragma unroll
      for (int t = 0; t < kBackwardInputs; ++t) w[t] = k + t < in.count ? C(widen(weights[in.position[k + t]])) : C(0);
      typename Part::Words x[kBackwardInputs][kBackwardPacks] = {};
      if (dots) {
#pragma unroll
        for (int t = 0; t < kBackwardInputs; ++t)
          if (k + t < in.count) part.load(static_cast<const T*>(in.x[k + t]), x[t]);
      }
#pragma unroll
      for (int t = 0; t < kBackwardInputs; ++t) {
        if (k + t < in.count && in.dx[k + t])
          part.store(static_cast<T*>(in.dx[k + t]), [&](int u, int j) { return w[t] * Part::value(g[u], j); });
      }
      if (!dots) continue;
      C sums[kBackwardInputs];  // over a warp; over warps and tiles in double
#pragma unroll
      for (int t = 0; t < kBackwardInputs; ++t) {
        C dot = 0;
#pragma unroll
        for (int u = 0; u < kBackwardPacks; ++u) {
#pragma unroll
          for (int j = 0; j < Part::width; ++j) dot += Part::value(g[u], j) * Part::value(x[t][u], j);
        }
        sums[t] = dot;
      }
      WarpTeam<32>().sum(sums);
#pragma unroll
      for (int t = 0; t < kBackwardInputs; ++t)
        if (thread % 32 == 0 && k + t < in.count) warp_dots[(k + t) * kWarps + thread / 32] = sums[t];
    }
    if (!dots) return;
    __syncthreads();
    if (thread < in.count) {
      double dot = 0;
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) dot += double(warp_dots[thread * kWarps + warp]);
      dots[thread * tiles.count + tile] = dot;
    }
    __syncthreads();
  });
}

// The gradient of the weights, one block per weight: grad_weights[w] = before[w] + the sum of dots over all tiles and
// over the inputs k with position[k] == w. A sum without inputs is 0. A null `before` counts as 0. If `after` is not
// null, the result is stored there instead of in grad_weights. before and after may be the same array.
template <class W>
__global__ void __launch_bounds__(kMixedOpThreads)
    mixed_op_weights_backward(MixedOpInputs in, const double* dots, int64_t tiles, int64_t count, const double* before,
                              double* after, W* grad_weights) {
  const BlockTeam team;
  for (int64_t weight = blockIdx.x; weight < count; weight += gridDim.x) {
    double total = 0;
    for (int k = 0; k < in.count; ++k) {
      if (in.position[k] != weight) continue;
      for (int64_t tile = team.rank(); tile < tiles; tile += team.size()) total += dots[k * tiles + tile];
    }
    total = team.sum(total);
    if (team.rank() != 0) continue;
    if (before) total += before[weight];
    if (after)
      after[weight] = total;
    else
      grad_weights[weight] = narrow<W>(Compute<W>(total));
  }
}

}  // namespace automl_ext
