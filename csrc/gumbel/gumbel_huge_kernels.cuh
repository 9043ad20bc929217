// Gumbel sampling on CUDA for rows that do not fit shared memory: several blocks per row. The first launch generates the noise,
// keeps z = x + noise, and summarizes each part of a row; the last one computes the outputs. Between them, entmax finds the
// threshold of each row.
#pragma once
#include "../entmax/entmax_huge_kernels.cuh"
#include "gumbel_kernels.cuh"

namespace automl_ext {

// The z of a part of a row: whole windows of the stream. A thread has the four elements of each of its counters. Those that are
// not in the row are −inf.
template <class T, int kThreads>
struct PerturbedPart {
  using C = Compute<T>;
  using Index = int;
  using Accumulator = ShortSum<C>;
  static constexpr int rounds = kHugeItems / 4;
  const int64_t begin, n;  // of the part in its row, perhaps negative; of the row
  C values[kHugeItems];

  // `first` is the index of x[0] in its group, which `early` is below the window of x[begin].
  __device__ __forceinline__ PerturbedPart(const T* x, int64_t n_, int64_t begin_, int64_t first, uint64_t seed)
      : begin(begin_), n(n_) {
    T logits[kHugeItems];
#pragma unroll
    for (int j = 0; j < kHugeItems; ++j)
      if (exists(j)) logits[j] = x[begin + index(j)];
    const uint64_t counter = uint64_t(first + begin) / kWindow * 16 + threadIdx.x;
#pragma unroll
    for (int round = 0; round < rounds; ++round) {
      uint32_t words[4];
      philox(seed, counter + round * kThreads, words);
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const int j = 4 * round + q;
        values[j] = exists(j) ? perturb(C(widen(logits[j])), words[q]) : -infinity<C>();
      }
    }
  }
  // The place in the part of item j.
  __device__ __forceinline__ int index(int j) const {
    return (int(threadIdx.x) / 16 + j / 4 * (kThreads / 16)) * kWindow + int(threadIdx.x) % 16 + j % 4 * 16;
  }
  __device__ __forceinline__ bool exists(int j) const { return uint64_t(begin + index(j)) < uint64_t(n); }
  template <class F, class EndChains = NoChains>
  __device__ __forceinline__ void each(const F& f, const EndChains& = {}) const {
#pragma unroll
    for (int j = 0; j < kHugeItems; ++j) f(values[j]);
  }
  template <class F>
  __device__ __forceinline__ void each_indexed(const F& f) const {
#pragma unroll
    for (int j = 0; j < kHugeItems; ++j) f(index(j), values[j]);
  }
  // Stores the part in a row.
  __device__ __forceinline__ void keep(C* row) const {
#pragma unroll
    for (int j = 0; j < kHugeItems; ++j)
      if (exists(j)) row[begin + index(j)] = values[j];
  }
};

// Elements of a row before which its first part begins: it begins with a window of the stream.
__device__ __forceinline__ int before_row(const GumbelCudaRows& rows, int64_t row) {
  return int(row % rows.rows_per_group * rows.n % kWindow);
}

// z: null if only the index is needed.
template <bool entmax, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, 512 / kThreads)
    gumbel_huge_parts(GumbelCudaRows rows, HugeRows<Compute<T>> huge, const T* x, Compute<T>* z) {
  using C = Compute<T>;
  const BlockTeam team;
  for (int64_t at = blockIdx.x; at < huge.count * huge.parts; at += gridDim.x) {
    const int64_t row = at / huge.parts, number = at - row * huge.parts;
    const TilePlace place(rows, row, rows.rows_per_group, 1);
    const PerturbedPart<T, kThreads> part(x + row * rows.n, rows.n, number * huge.part - before_row(rows, row),
                                          place.row_in_group * rows.n,
                                          uint64_t(rows.seeds[place.group * rows.seed_step]));
    const Largest<PerturbedPart<T, kThreads>> largest(team, part);
    const C top = largest.value, inverse = inverse_tau<C>(rows, place.group);
    PartSummary<C> summary{top, largest.index, entmax ? C(0.5) * inverse : inverse, 0};
    if (z) {
      part.keep(z + row * rows.n);
      if constexpr (entmax) {
        summary.total = C(list_candidates(team, part, top, summary.scale, huge.list(at), huge.listed()));
      } else {
        ShortSum<C> sum;
        const C below = top == -infinity<C>() ? C(0) : top;  // 0 for a part of only −inf
        part.each([&](C v) { sum.add(std::exp((v - below) * inverse)); });
        summary.total = team.sum(sum.value());
      }
    }
    if (team.rank() == 0) huge.summaries[at] = summary;
  }
}

// The summary of a row, from those of its parts.
template <bool entmax, class C>
struct RowSummary {
  C top, scale, share;  // share: 1 over the sum of exponentials
  int64_t index;

  // Part i begins at element i·length − early.
  __device__ __forceinline__ void read(const BlockTeam& team, const PartSummary<C>* parts, int64_t count, int length,
                                       int early) {
    C best = -infinity<C>();
    for (int64_t i = team.rank(); i < count; i += team.size()) best = larger(parts[i].top, best);
    top = team.largest(best);
    scale = parts[0].scale;
    int64_t first = kLargest<int64_t>;
    Sum<C> sum;
    const auto add = [&](int64_t i) {
      const PartSummary<C> part = parts[i];
      const int64_t place = i * length - early + part.index;
      first = smaller(part.top == top || (part.top != part.top && top != top) ? place : first, first);
      if constexpr (!entmax)
        sum.add(part.top == -infinity<C>() ? C(0) : std::exp((part.top - top) * scale) * part.total);
    };
    in_chains<kLongestChain, int64_t>(team.rank(), team.size(), count, add, [&] { sum.end_chain(); });
    first = team.smallest(first);
    index = top == -infinity<C>() ? 0 : first;
    share = entmax ? C(0) : C(1 / team.sum(sum.value()));
  }
};

template <bool entmax, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, (entmax ? 512 : 1024) / kThreads)
    gumbel_huge_rows(GumbelCudaRows rows, HugeRows<Compute<T>> huge, GumbelOutputs<T> out) {
  using C = Compute<T>;
  using Row = RegisterRow<T, FixedBlockTeam<kThreads>, kHugeItems>;
  const BlockTeam team;
  const int64_t n = rows.n;
  const bool packed = packs_fit<Row::width>(huge.values, n) && packs_fit<Row::width>(out.soft, n) &&
                      packs_fit<Row::width>(out.one_hot, n);
  RowSummary<entmax, C> summary;
  int64_t summarized = -1;
  for (int64_t at = blockIdx.x; at < huge.count * huge.parts; at += gridDim.x) {
    const HugePart part(huge, at);
    if (part.row != summarized)
      summary.read(team, huge.summaries + part.row * huge.parts, huge.parts, huge.part, before_row(rows, part.row));
    summarized = part.row;
    if (out.index && part.number == 0 && team.rank() == 0) out.index[part.row] = summary.index;
    if (!out.soft) continue;
    const int64_t start = part.row * n + part.first;
    Row row({}, huge.values + start, part.length, packed);
    if constexpr (entmax) {
      row.shift(summary.top, summary.scale, [](C) {});
      store_entmax<2>(row, huge.thresholds[part.row].tau, summary.top, summary.scale, out.soft + start);
    } else {
      row.exponentiate(summary.top, summary.scale, [](C) {}, NoChains());
      row.store(out.soft + start, [&](C e) { return e * summary.share; });
    }
    if (out.one_hot)
      store_one_hot<entmax>(row, summary.top, summary.scale, summary.index - part.first, out.one_hot + start);
  }
}

}  // namespace automl_ext
