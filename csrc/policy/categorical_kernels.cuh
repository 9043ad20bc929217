// log π(a) and entropy of categorical distributions on CUDA, and their gradient, as policy_kernel.inc.
#pragma once
#include "../common/cuda/rows.cuh"
#include "policy.h"

namespace automl_ext {

// Logarithms and distances below this count as this: exp gives 0, and the product with 0 must not be NaN.
template <class C>
constexpr C kLowest = C(-1000);

// exp(x) of x ≤ 0. In float with a relative error of at most 2⁻²² + |x|·2⁻²⁴: two instructions instead of seven.
#ifdef __CUDACC__
__device__ __forceinline__ float fast_exp(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504088896341f));
  return y;
}
#else
inline float fast_exp(float x) { return std::exp2(x * 1.44269504088896341f); }
#endif
__device__ __forceinline__ double fast_exp(double x) { return std::exp(x); }

// The row statistics of softmax: the maximum m, log Σ exp(x − m), and the entropy.
template <class C>
struct SoftmaxOfRow {
  C top, log_sum, entropy;
};

// Writes the results of row `at`. An action that does not exist gives NaN.
template <class T, class C>
__device__ __forceinline__ void write_categorical(const CategoricalCall& x, int64_t at, const SoftmaxOfRow<C>& s) {
  const int64_t action = x.actions[at];
  const bool exists = uint64_t(action) < uint64_t(x.n);
  const C chosen = exists ? load<T>(x.logits, at * x.n + action) : not_a_number<C>();
  store<T>(x.log_probs, at, (chosen - s.top) - s.log_sum);
  store<T>(x.entropy, at, s.entropy);
  if (!x.statistics) return;
  C* const kept = static_cast<C*>(x.statistics) + at;
  kept[0] = s.top;
  kept[x.rows] = s.log_sum;
  kept[2 * x.rows] = s.entropy;
}

// kLanes threads per row of up to kLanes·kItems values, in registers.
template <class T, int kLanes, int kItems>
__global__ void __launch_bounds__(128, 4) categorical_short_rows(CategoricalCall x) {
  using C = Compute<T>;
  using Row = RegisterRow<T, WarpTeam<kLanes>, kItems>;
  const WarpTeam<kLanes> team;
  const T* const logits = static_cast<const T*>(x.logits);
  const bool packed = packs_fit<Row::width>(logits, x.n);
  const int64_t rows_per_block = blockDim.x / kLanes;
  for (int64_t first = blockIdx.x * rows_per_block; first < x.rows; first += gridDim.x * rows_per_block) {
    const int64_t at = first + threadIdx.x / kLanes;
    const Row row(team, logits + at * x.n, at < x.rows ? int(x.n) : 0, packed);
    C top = -infinity<C>();
    row.each([&](C v) { top = larger(v, top); });
    top = team.largest(top);
    ShortSum<C> sum, weighted;
    row.each([&](C v) {
      const C e = std::exp(v - top);
      sum.add(e);
      weighted.add(e == 0 ? e : e * (v - top));
    });
    C sums[2] = {sum.value(), weighted.value()};
    team.sum(sums);
    const C log_sum = std::log(sums[0]);
    if (at < x.rows && team.rank() == 0) write_categorical<T, C>(x, at, {top, log_sum, log_sum - sums[1] / sums[0]});
  }
}

// A row as packs from an address that is a multiple of 16 bytes on; single elements, the edges, are before and after them.
template <class T>
struct AlignedRow {
  static constexpr int width = pack_width<T, 8>();
  int64_t head, body, n;

  __device__ __forceinline__ AlignedRow(const T* row, int64_t n_) : n(n_) {
    const int64_t before = int64_t(-reinterpret_cast<uintptr_t>(row) % 16 / sizeof(T));
    head = before < n ? before : n;
    body = (n - head) / width * width;
  }
  __device__ __forceinline__ int64_t edges() const { return n - body; }
  __device__ __forceinline__ int64_t edge(int64_t i) const { return i < head ? i : i + body; }
};

// One pass over a row. A thread has four packs at a time; if their maximum is larger than that of the earlier ones, it scales
// the sums so far. Sums are in C for at most 64 additions, then in double.
template <class T>
__device__ __forceinline__ SoftmaxOfRow<Compute<T>> softmax_of(const BlockTeam& team, const T* row, int64_t n) {
  using C = Compute<T>;
  constexpr int width = AlignedRow<T>::width, packs = 4, values = packs * width, chain = 2 * 64 / values;
  const AlignedRow<T> parts(row, n);
  const auto base_of = [](C top) { return top == -infinity<C>() ? C(0) : top; };
  const C edge = team.rank() < parts.edges() ? C(widen(row[parts.edge(team.rank())])) : -infinity<C>();
  C top = fmax(edge, -infinity<C>());  // not NaN: a NaN reaches the sums
  double sum = std::exp(edge - base_of(top)), weighted = 0;
  const T* const body = row + parts.head;
  const int64_t step = int64_t(team.size()) * width;
  for (int64_t at = int64_t(team.rank()) * width; at < parts.body;) {
    const C before = top;
    const int64_t end = parts.body - at < chain * packs * step ? parts.body : at + chain * packs * step;
    C sums[2] = {0, 0}, products[2] = {0, 0};
    for (; at < end; at += packs * step) {
      C v[values];
#pragma unroll
      for (int q = 0; q < packs; ++q) {
        Pack<T, width> pack{};
        if (at + q * step < parts.body) pack = *reinterpret_cast<const Pack<T, width>*>(body + at + q * step);
#pragma unroll
        for (int k = 0; k < width; ++k)
          v[q * width + k] = at + q * step < parts.body ? C(widen(pack.values[k])) : -infinity<C>();
      }
      C largest = top;
#pragma unroll
      for (int i = 0; i < values; ++i) largest = fmax(largest, v[i]);
      if (largest > top) {
        const C change = fmax(top - largest, kLowest<C>), factor = fast_exp(change);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          products[i] = factor * (products[i] + sums[i] * change);
          sums[i] *= factor;
        }
        top = largest;
      }
      const C base = base_of(top);
#pragma unroll
      for (int i = 0; i < values; ++i) {
        const C below = v[i] - base, e = fast_exp(below);
        sums[i % 2] += e;
        products[i % 2] += e * fmax(below, kLowest<C>);
      }
    }
    const double change = fmax(before - top, kLowest<C>), factor = std::exp(C(change));
    weighted = factor * (weighted + sum * change) + double(products[0] + products[1]);
    sum = factor * sum + double(sums[0] + sums[1]);
  }
  const C row_top = team.largest(top);
  const double change = fmax(top - row_top, kLowest<C>), factor = std::exp(C(change));
  double sums[2] = {factor * sum, factor * (weighted + sum * change)};
  team.sum(sums);
  const C log_sum = std::log(C(sums[0]));
  return {row_top, log_sum, C(double(log_sum) - sums[1] / sums[0])};
}

constexpr int kVocabularyThreads = 256;  // with about 80 registers each

// One block per row.
template <class T>
__global__ void __launch_bounds__(kVocabularyThreads, sizeof(T) == 8 ? 2 : 3) categorical_long_rows(CategoricalCall x) {
  const BlockTeam team;
  for (int64_t at = blockIdx.x; at < x.rows; at += gridDim.x) {
    const SoftmaxOfRow<Compute<T>> s = softmax_of(team, static_cast<const T*>(x.logits) + at * x.n, x.n);
    if (team.rank() == 0) write_categorical<T>(x, at, s);
  }
}

// d log π(a) / dxⱼ = [j = a] − pⱼ;  dH / dxⱼ = −pⱼ(log pⱼ + H)
template <class T>
struct CategoricalGradient {
  using C = Compute<T>;
  C of_log_prob = 0, of_entropy = 0;
  SoftmaxOfRow<C> s{};

  __device__ __forceinline__ CategoricalGradient(const CategoricalBackward& x, int64_t at) {
    if (at >= x.rows) return;
    if (x.grad_log_probs) of_log_prob = load<T>(x.grad_log_probs, at);
    if (x.grad_entropy) of_entropy = load<T>(x.grad_entropy, at);
    const C* const kept = static_cast<const C*>(x.statistics) + at;
    s = {kept[0], kept[x.rows], kept[2 * x.rows]};
  }
  __device__ __forceinline__ C log_p(C v) const { return (v - s.top) - s.log_sum; }
  // Without the term of the action.
  __device__ __forceinline__ C of(C log_p, C p) const {
    return -(p * (of_entropy * (fmax(log_p, kLowest<C>) + s.entropy) + of_log_prob));
  }
  __device__ __forceinline__ C fast(C v) const { return of(log_p(v), fast_exp(log_p(v))); }
};

template <class T, int kLanes, int kItems>
__global__ void __launch_bounds__(128, 4) categorical_backward_short_rows(CategoricalBackward x) {
  using C = Compute<T>;
  using Row = RegisterRow<T, WarpTeam<kLanes>, kItems>;
  const WarpTeam<kLanes> team;
  const T* const logits = static_cast<const T*>(x.logits);
  T* const out = static_cast<T*>(x.grad_logits);
  const bool packed = packs_fit<Row::width>(logits, x.n) && packs_fit<Row::width>(out, x.n);
  const int64_t rows_per_block = blockDim.x / kLanes;
  for (int64_t first = blockIdx.x * rows_per_block; first < x.rows; first += gridDim.x * rows_per_block) {
    const int64_t at = first + threadIdx.x / kLanes;
    const Row row(team, logits + at * x.n, at < x.rows ? int(x.n) : 0, packed);
    const CategoricalGradient<T> gradient(x, at);
    const int64_t action = at < x.rows ? x.actions[at] : -1;
    row.store_items(out + at * x.n, [&](int j) {
      const C log_p = gradient.log_p(row.values[j]), g = gradient.of(log_p, std::exp(log_p));
      return row.index(j) == action ? g + gradient.of_log_prob : g;
    });
  }
}

// One block per row. The element of the action is stored a second time, so that half precision is rounded once.
template <class T>
__global__ void __launch_bounds__(kRowThreads, 2) categorical_backward_long_rows(CategoricalBackward x) {
  using C = Compute<T>;
  constexpr int width = AlignedRow<T>::width;
  const BlockTeam team;
  for (int64_t at = blockIdx.x; at < x.rows; at += gridDim.x) {
    const T* const row = static_cast<const T*>(x.logits) + at * x.n;
    T* const out = static_cast<T*>(x.grad_logits) + at * x.n;
    const CategoricalGradient<T> gradient(x, at);
    const auto fast = [&](C v) { return gradient.fast(v); };
    AlignedRow<T> parts(row, x.n);
    if (AlignedRow<T>(out, x.n).head != parts.head) parts.head = x.n, parts.body = 0;
    for (int64_t i = team.rank(); i < parts.edges(); i += team.size()) {
      const int64_t j = parts.edge(i);
      out[j] = narrow<T>(fast(widen(row[j])));
    }
    const MemoryRow<T, BlockTeam> body{team, parts.body, true};
    static_assert(MemoryRow<T, BlockTeam>::width == width, "packs");
    body.map(out + parts.head, fast, NoChains(), row + parts.head);
    __syncthreads();
    const int64_t action = x.actions[at];
    if (team.rank() == 0 && uint64_t(action) < uint64_t(x.n))
      out[action] = narrow<T>(fast(widen(row[action])) + gradient.of_log_prob);
  }
}

}  // namespace automl_ext
