// Gradients of alpha-entmax, normmax and budget-sparsemax on CUDA: the formulas of bisect_backward.inc.
#pragma once
#include "bisect_kernels.cuh"

namespace automl_ext {

// The rows of grad and p, in registers.
template <class T, class Team, int kItems>
struct RegisterGradient {
  using C = Compute<T>;
  using Accumulator = ShortSum<C>;
  using Total = C;
  const RegisterRow<T, Team, kItems> g, y;

  template <class F, class EndChains>
  __device__ __forceinline__ void each(const F& f, const EndChains&) const {
#pragma unroll
    for (int j = 0; j < kItems; ++j) f(g.values[j], y.values[j]);
  }
  template <class F>
  __device__ __forceinline__ void store(T* out, const F& f) const {
    g.store_items(out, [&](int j) { return f(g.values[j], y.values[j]); });
  }
};

// The same, read on each pass.
template <class T, class Team>
struct GlobalGradient {
  using C = Compute<T>;
  using Accumulator = Sum<C>;
  using Total = double;
  const MemoryRow<T, Team> memory;
  const T *grad, *p;

  template <class F, class EndChains>
  __device__ __forceinline__ void each(const F& f, const EndChains& end_chains) const {
    memory.read([&](int64_t, C g, C y) { f(g, y); }, end_chains, grad, p);
  }
  template <class F>
  __device__ __forceinline__ void store(T* out, const F& f) const {
    memory.map(out, f, NoChains(), grad, p);
  }
};

template <int k>
constexpr double kInverseFactorial = kInverseFactorial<k - 1> / k;
template <>
constexpr double kInverseFactorial<0> = 1;

// φ(z) = (z·eᶻ − eᶻ + 1)/z² = Σ zᵏ/(k!(k + 2)).
template <int k, class C>
__device__ __forceinline__ C phi_series(C z) {
  if constexpr (k == (sizeof(C) == 8 ? 18 : 10))
    return C(kInverseFactorial<k> / (k + 2));
  else
    return phi_series<k + 1>(z) * z + C(kInverseFactorial<k> / (k + 2));
}
template <class C>
__device__ __forceinline__ C phi_of(C z) {
  if (std::fabs(z) < 1) return phi_series<0>(z);
  const C e = std::exp(z);
  return (z * e - e + 1) / (z * z);
}

// v on the support, 0 elsewhere; log p on the support.
template <class C>
__device__ __forceinline__ C where_positive(C p, C v) {
  return p >= kSmallestNormal<C> ? v : C(0);
}
template <class C>
__device__ __forceinline__ C log_of_positive(C p) {
  return where_positive(p, std::log(p));
}

// Two sums over the row of f(g, p, terms).
template <int count, class Team, class Pairs, class F>
__device__ __forceinline__ void sum_pairs(const Team& team, const Pairs& row, typename Pairs::C (&totals)[count],
                                          const F& f) {
  using C = typename Pairs::C;
  typename Pairs::Accumulator sums[count];
  row.each(
      [&](C g, C p) {
        C terms[count];
        f(g, p, terms);
#pragma unroll
        for (int i = 0; i < count; ++i) sums[i].add(terms[i]);
      },
      [&] {
#pragma unroll
        for (int i = 0; i < count; ++i) sums[i].end_chain();
      });
  typename Pairs::Total values[count];
#pragma unroll
  for (int i = 0; i < count; ++i) values[i] = sums[i].value();
  team.sum(values);
#pragma unroll
  for (int i = 0; i < count; ++i) totals[i] = C(values[i]);
}

// Computes dx, and returns the gradient of the parameter if needed.
template <class T, class Team, class Pairs, class C>
__device__ __forceinline__ C bisect_backward_row(int map, const Team& team, const Pairs& row, C parameter,
                                                 bool needs_parameter, T* dx) {
  const C nan = not_a_number<C>(), a = parameter - 1;
  if (map == kBudget) {
    C sums[3];
    sum_pairs(team, row, sums, [](C g, C p, C(&terms)[3]) {
      const bool free = p > 0 && p < 1;
      terms[0] = free ? g : C(0);
      terms[1] = free;
      terms[2] = p != p;
    });
    const C mean = sums[2] > 0 ? nan : sums[0] / (sums[1] > 0 ? sums[1] : C(1));
    row.store(dx, [&](C g, C p) { return (p > 0 && p < 1) || mean != mean ? g - mean : C(0); });
    return mean;
  }
  // A constant in g has no effect: a mean of g is subtracted first, so that it does not cost precision either.
  C means[3], top = 0;
  sum_pairs(team, row, means, [&](C g, C p, C(&terms)[3]) {
    top = p > top ? p : top;
    terms[0] = where_positive(p, p * g);
    terms[1] = where_positive(p, p);
    terms[2] = p != p;
  });
  const C times = means[2] > 0 ? nan : C(1), shift = means[0] / (means[1] > 0 ? means[1] : C(1));
  top = team.largest(top);
  if (map != kNormmax) {
    const C exponent = 1 - a;
    C sums[2];
    sum_pairs(team, row, sums, [&](C g, C p, C(&terms)[2]) {
      const C s = where_positive(p, std::exp(log_of_positive(p) * exponent));
      terms[0] = where_positive(p, s * (g - shift));
      terms[1] = s;
    });
    const C mean = sums[0] / (sums[1] > 0 ? sums[1] : C(1));
    const auto dx_of = [&](C g, C p, C l) {
      return where_positive(p, std::exp(l * exponent) * ((g - shift) - mean)) * times;
    };
    C of_parameter[1] = {0};
    if (needs_parameter) {
      // A constant in u has no effect, as ⟨dx, 1⟩ = 0: subtracted, it costs no precision where the outputs are alike.
      const auto u = [&](C l) { return l * l * phi_of(a * l); };
      const C constant = u(log_of_positive(top));
      sum_pairs(team, row, of_parameter, [&](C g, C p, C(&terms)[1]) {
        const C l = log_of_positive(p);
        terms[0] = -dx_of(g, p, l) * (u(l) - constant);
      });
    }
    row.store(dx, [&](C g, C p) { return dx_of(g, p, log_of_positive(p)); });
    return of_parameter[0];
  }
  const bool empty = !(top > 0);
  const C log_top = empty ? C(0) : std::log(top);
  C sums[3];  // ⟨p, g⟩, Σ r^α, Σ r^α·log r, with r = p/max p
  sum_pairs(team, row, sums, [&](C g, C p, C(&terms)[3]) {
    const C l = where_positive(p, log_of_positive(p) - log_top), power = where_positive(p, std::exp(l * parameter));
    terms[0] = where_positive(p, p * (g - shift));
    terms[1] = power;
    terms[2] = power * l;
  });
  const C mean = sums[0], log_sum = empty ? C(0) : std::log(sums[1]);
  const C norm = std::exp(log_top + log_sum / parameter);
  const C weight = std::exp(log_sum * (a / parameter)) * (empty ? C(0) : top) / a;
  const auto v_of = [&](C g, C p) {
    const C l = where_positive(p, log_of_positive(p) - log_top);
    return where_positive(p, std::exp(l * (1 - a)) * weight * ((g - shift) - mean));
  };
  C totals[2];
  sum_pairs(team, row, totals, [&](C g, C p, C(&terms)[2]) {
    terms[0] = v_of(g, p);
    terms[1] = where_positive(p, p * ((g - shift) - mean) * log_of_positive(p));
  });
  row.store(dx, [&](C g, C p) { return (v_of(g, p) - p * totals[0]) * times; });
  const C entropy = sums[2] / (empty ? C(1) : sums[1]) - log_sum / parameter;
  return (totals[0] * entropy * norm / parameter - totals[1] / a) * times;
}

template <class T, int kLanes, int kItems>
__global__ void __launch_bounds__(128, 4)
    bisect_backward_short_rows(int map, const T* grad, const T* p, RowParameters<Compute<T>> parameters, T* dx,
                               Compute<T>* of_parameter, int64_t rows, int64_t n) {
  using C = Compute<T>;
  using Row = RegisterRow<T, WarpTeam<kLanes>, kItems>;
  const WarpTeam<kLanes> team;
  constexpr int width = Row::width;
  const bool packed = packs_fit<width>(grad, n) && packs_fit<width>(p, n) && packs_fit<width>(dx, n);
  const int64_t rows_per_block = blockDim.x / kLanes;
  for (int64_t first = blockIdx.x * rows_per_block; first < rows; first += gridDim.x * rows_per_block) {
    const int64_t at = first + threadIdx.x / kLanes;
    const int length = at < rows ? int(n) : 0;
    const RegisterGradient<T, WarpTeam<kLanes>, kItems> row{Row(team, grad + at * n, length, packed, C(0)),
                                                            Row(team, p + at * n, length, packed, C(0))};
    const C result =
        bisect_backward_row(map, team, row, parameters(at < rows ? at : 0), of_parameter != nullptr, dx + at * n);
    if (of_parameter && at < rows && team.rank() == 0) of_parameter[at] = result;
  }
}

template <class T>
__global__ void __launch_bounds__(kRowThreads, 1)
    bisect_backward_long_rows(int map, const T* grad, const T* p, RowParameters<Compute<T>> parameters, T* dx,
                              Compute<T>* of_parameter, int64_t rows, int64_t n) {
  const BlockTeam team;
  constexpr int width = MemoryRow<T, BlockTeam>::width;
  const bool packed = packs_fit<width>(grad, n) && packs_fit<width>(p, n) && packs_fit<width>(dx, n);
  for (int64_t at = blockIdx.x; at < rows; at += gridDim.x) {
    const GlobalGradient<T, BlockTeam> row{{team, n, packed}, grad + at * n, p + at * n};
    const Compute<T> result = bisect_backward_row(map, team, row, parameters(at), of_parameter != nullptr, dx + at * n);
    if (of_parameter && team.rank() == 0) of_parameter[at] = result;
  }
}

}  // namespace automl_ext
