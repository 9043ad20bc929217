// Entmax-1.5 and sparsemax on CUDA for rows that do not fit shared memory: several blocks per row, in three launches. The first
// lists the elements of each part of a row that can be in the support, the second finds the threshold of each row, and the
// third computes p. Gumbel sampling has other first and third launches.
#pragma once
#include "entmax_kernels.cuh"

namespace automl_ext {

constexpr int kHugeThreads = 512, kHugeItems = 16;  // of a block, and of a thread, in registers

// What the first launch finds out about a part of a row.
template <class C>
struct alignas(16) PartSummary {
  C top;      // the largest element
  int index;  // Gumbel: the first one of the largest, in the part
  C scale;    // of the row
  // Entmax: the number of elements that can be in the support; the list of the part has them unless it is too short.
  // Softmax: the sum of exp((x − top)·scale).
  C total;
};
template <class C>
struct alignas(16) RowThreshold {
  Threshold<C> tau;
  C top, scale;
};

// Rows of n values of type V, and what the launches leave for the next one.
template <class V>
struct HugeRows {
  using C = Compute<V>;
  int64_t count, n, parts;  // rows, elements, parts of a row
  int part;                 // elements of a part
  const V* values;
  PartSummary<C>* summaries;    // [count, parts]
  RowThreshold<C>* thresholds;  // [count]
  V* lists;                     // [count, parts, listed()]

  __host__ __device__ __forceinline__ int listed() const { return part / 8; }
  __device__ __forceinline__ V* list(int64_t at) const { return lists + at * listed(); }
};

// The elements of a row in a part. Parts begin `early` elements before multiples of their length.
struct HugePart {
  int64_t row, number, first;
  int length;

  template <class V>
  __device__ __forceinline__ HugePart(const HugeRows<V>& rows, int64_t at, int early = 0)
      : row(at / rows.parts), number(at - row * rows.parts) {
    const int64_t begin = number * rows.part - early, end = begin + rows.part;
    first = begin < 0 ? 0 : begin;
    const int64_t last = end < rows.n ? end : rows.n;
    length = first < last ? int(last - first) : 0;
  }
};

// Lists the elements of a part that can be in the support of its row: those greater than −1 after a shift by the largest one
// of the part, which is not above that of the row. Returns their number; the list is not written if it is too short.
template <class V, class Row, class C>
__device__ __forceinline__ int list_candidates(const BlockTeam& team, const Row& row, C top, C scale, V* list,
                                               int listed) {
  const auto can_be = [&](C x) { return (x - top) * scale > C(-1); };
  int own = 0;
  row.each([&](C x) { own += can_be(x); });
  const auto [first, total] = team.share(own);
  int at = first;
  if (total <= listed)
    row.each([&](C x) {
      if (can_be(x)) list[at++] = narrow<V>(x);
    });
  return total;
}

template <int power, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, 1024 / kThreads) entmax_huge_parts(HugeRows<T> rows) {
  using C = Compute<T>;
  using Row = RegisterRow<T, FixedBlockTeam<kThreads>, kHugeItems>;
  const BlockTeam team;
  const bool packed = packs_fit<Row::width>(rows.values, rows.n);
  for (int64_t at = blockIdx.x; at < rows.count * rows.parts; at += gridDim.x) {
    const HugePart part(rows, at);
    const Row row({}, rows.values + part.row * rows.n + part.first, part.length, packed);
    const C top = largest_of(team, row), scale = power == 2 ? C(0.5) : C(1);
    const int count = list_candidates(team, row, top, scale, rows.list(at), rows.listed());
    if (team.rank() == 0) rows.summaries[at] = {top, 0, scale, C(count)};
  }
}

// The lists of a row, in which the support is; the whole part where the list is too short. A warp for each part.
template <class V>
struct ListedRow {
  using C = Compute<V>;
  static constexpr int longest_chain = 16;  // in a long row of equal elements, all additions round in one direction
  using Accumulator = Sum<C>;
  using Total = double;
  using Scalar = double;
  const BlockTeam team;
  const HugeRows<V> rows;
  const int64_t row;
  const int early;
  C top = 0, scale = 1;

  __device__ __forceinline__ ListedRow(const BlockTeam& team_, const HugeRows<V>& rows_, int64_t row_, int early_)
      : team(team_), rows(rows_), row(row_), early(early_) {}
  template <class F, class EndChains = NoChains>
  __device__ __forceinline__ void each(const F& f, const EndChains& end_chains = {}) const {
    for (int64_t number = team.rank() / 32; number < rows.parts; number += team.size() / 32) {
      const int64_t at = row * rows.parts + number;
      const int count = int(rows.summaries[at].total);
      const HugePart part(rows, at, early);
      const bool listed = count <= rows.listed();
      const V* const values = listed ? rows.list(at) : rows.values + row * rows.n + part.first;
      const int n = listed ? count : part.length;
      for (int first = team.rank() % 32; first < n; first += longest_chain * 32) {
        V loaded[longest_chain];  // the loads of a warp wait together
#pragma unroll
        for (int q = 0; q < longest_chain; ++q)
          if (first + q * 32 < n) loaded[q] = values[first + q * 32];
#pragma unroll
        for (int q = 0; q < longest_chain; ++q)
          if (first + q * 32 < n) f((widen(loaded[q]) - top) * scale);
        end_chains();
      }
    }
  }
  template <class F>
  __device__ __forceinline__ void shift(C top_, C scale_, const F& f) {
    top = top_;
    scale = scale_;
    each(f);
  }
};

// The most candidates of a row in shared memory: 32 KB.
template <class C>
constexpr int kHugeCandidates = 32768 / int(sizeof(C));

// The threshold of a row. If the elements that can be in the support are not too many, they are copied to shared memory.
template <int power, class V, class C>
__device__ Threshold<C> huge_threshold(const BlockTeam& team, ListedRow<V>& row, C top, C scale, C* candidates) {
  using Few = SharedRow<C, BlockTeam>;
  const bool is_valid = is_valid_row(top, scale);
  int own = 0;
  row.shift(top, scale, [&](C v) { own += v > C(-1); });
  const auto [first, total] = team.share(own < kHugeCandidates<C> ? own : kHugeCandidates<C> + 1);
  if (total > kHugeCandidates<C>) return find_threshold<power>(team, row, is_valid);
  int at = first;
  row.each([&](C v) {
    if (v > C(-1)) candidates[at++] = v;
  });
  const int padded = (total + Few::width - 1) / Few::width * Few::width;
  if (total + team.rank() < padded) candidates[total + team.rank()] = -1;
  __syncthreads();
  Few few(team, candidates, padded, true);
  return shifted_threshold<power>(team, few, C(0), C(1), is_valid);
}

// One block per row. Parts begin (row mod rows_per_group)·n mod `window` elements early.
template <int power, class V>
__global__ void __launch_bounds__(kRowThreads, 1)
    entmax_huge_thresholds(HugeRows<V> rows, int64_t rows_per_group, int window) {
  using C = Compute<V>;
  KERNEL_DYNAMIC_SHARED(C, candidates);
  const BlockTeam team;
  for (int64_t row = blockIdx.x; row < rows.count; row += gridDim.x) {
    const PartSummary<C>* const summaries = rows.summaries + row * rows.parts;
    C top = -infinity<C>();
    for (int64_t i = team.rank(); i < rows.parts; i += team.size()) top = larger(summaries[i].top, top);
    top = team.largest(top);
    const C scale = summaries[0].scale;
    ListedRow<V> all(team, rows, row, int(row % rows_per_group * rows.n % window));
    const Threshold<C> tau = huge_threshold<power>(team, all, top, scale, candidates);
    if (team.rank() == 0) rows.thresholds[row] = {tau, top, scale};
  }
}

template <int power, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, 1024 / kThreads) entmax_huge_rows(HugeRows<T> rows, T* p) {
  using C = Compute<T>;
  using Row = RegisterRow<T, FixedBlockTeam<kThreads>, kHugeItems>;
  const bool packed = packs_fit<Row::width>(rows.values, rows.n) && packs_fit<Row::width>(p, rows.n);
  for (int64_t at = blockIdx.x; at < rows.count * rows.parts; at += gridDim.x) {
    const HugePart part(rows, at);
    const int64_t start = part.row * rows.n + part.first;
    Row row({}, rows.values + start, part.length, packed);
    const RowThreshold<C> found = rows.thresholds[part.row];
    row.shift(found.top, found.scale, [](C) {});
    store_entmax<power>(row, found.tau, found.top, found.scale, p + start);
  }
}

}  // namespace automl_ext
