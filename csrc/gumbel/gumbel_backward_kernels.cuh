// Gradients on CUDA, for z = (x + noise)/τ and the gradient g of the result y; dx = dz/τ.
// Gumbel-softmax: dz = y(g − ⟨g, y⟩), dτ = −(1/τ)Σ dz·log y.
// Gumbel-entmax: dz = s(g − ⟨s, g⟩/⟨s, 1⟩) with s = √y, dτ = −(2/τ)Σ dz·s.
#pragma once
#include "gumbel_kernels.cuh"

namespace automl_ext {

// The gradient of a row from the sums ⟨s, g⟩ and ⟨s, 1⟩, where s = y or √y.
template <bool entmax, class C, template <class> class SumOf>
struct GumbelGradient {
  SumOf<C> weighted, weights, tau_terms;
  C mean;

  static __device__ __forceinline__ C weight(C y) { return entmax ? std::sqrt(y) : y; }
  static __device__ __forceinline__ C on_support(C s, C value) { return entmax ? supported(s, value) : value; }
  __device__ __forceinline__ void add(C g, C y) {
    const C s = weight(y);
    weighted.add(on_support(s, s * g));
    if (entmax) weights.add(s);
  }
  template <class Team>
  __device__ __forceinline__ void reduce(const Team& team) {
    decltype(weighted.value()) sums[2] = {weighted.value(), weights.value()};
    team.sum(sums);
    mean = entmax ? weighted_mean<C>(sums) : C(sums[0]);
  }
  __device__ __forceinline__ C dz(C g, C y) const {
    const C s = weight(y);
    return on_support(s, s * (g - mean));
  }
  // The factor of dz in dτ. Where y = 0, dz is 0 and log y must be finite.
  static __device__ __forceinline__ C tau_weight(C y) {
    constexpr C least = kSmallestNormal<C>;
    return entmax ? std::sqrt(y) : std::log(y > least ? y : least);
  }
};

// x/τ as a product, which is faster than a division per element. Scaled, because the inverse of a subnormal τ is infinite.
template <class C>
struct Divider {
  C scale, inverse;
  __device__ __forceinline__ explicit Divider(C tau) {
    scale = tau < 2 * kSmallestNormal<C> ? C(0x1p64) : C(1);
    inverse = 1 / (tau * scale);
  }
  __device__ __forceinline__ C operator()(C x) const { return x * scale * inverse; }
};

// Stores the sum of a block as its partial of dτ.
template <bool entmax>
__device__ __forceinline__ void store_tau_partial(double terms, double tau, double* partial) {
  const double total = BlockTeam().sum(terms);
  if (threadIdx.x == 0) *partial = total * (entmax ? -2 : -1) / tau;
}

template <bool entmax, class T, int kLanes, int kItems>
__global__ void __launch_bounds__(128, 4) gumbel_backward_short_rows(GumbelCudaRows rows, RowTiles tiles, const T* grad,
                                                                     const T* y, T* dx, double* partials) {
  using C = Compute<T>;
  using Row = RegisterRow<T, WarpTeam<kLanes>, kItems>;
  const WarpTeam<kLanes> team;
  constexpr int width = Row::width;
  const int64_t n = rows.n;
  const int rows_per_pass = int(blockDim.x) / kLanes;
  const bool packed = packs_fit<width>(grad, n) && packs_fit<width>(y, n) && packs_fit<width>(dx, n);
  for (int64_t t = blockIdx.x; t < tiles.count; t += gridDim.x) {
    const TilePlace place(rows, t, tiles.per_group, tiles.rows);
    const int64_t left = rows.rows_per_group - place.row_in_group;
    const int count = left < tiles.rows ? int(left) : tiles.rows;
    const C tau = valid_tau<C>(rows, place.group);
    const Divider<C> over_tau(tau);
    C tau_terms = 0;  // a tile has few elements per thread
    for (int first = 0; first < count; first += rows_per_pass) {
      const int r = first + int(threadIdx.x) / kLanes;
      const int64_t start = (place.row + r) * n;
      const int length = r < count ? int(n) : 0;
      const Row g(team, grad + start, length, packed, C(0)), p(team, y + start, length, packed, C(0));
      GumbelGradient<entmax, C, ShortSum> gradient;
#pragma unroll
      for (int j = 0; j < kItems; ++j) gradient.add(g.values[j], p.values[j]);
      gradient.reduce(team);
      if (partials) {
#pragma unroll
        for (int j = 0; j < kItems; ++j)
          gradient.tau_terms.add(gradient.dz(g.values[j], p.values[j]) * gradient.tau_weight(p.values[j]));
        tau_terms += gradient.tau_terms.value();
      }
      g.store_items(dx + start, [&](int j) { return over_tau(gradient.dz(g.values[j], p.values[j])); });
    }
    if (partials) store_tau_partial<entmax>(double(tau_terms), double(tau), partials + t);
  }
}

// Reads each row twice; the second time it is in the cache.
template <bool entmax, class T>
__global__ void __launch_bounds__(kRowThreads, 1)
    gumbel_backward_long_rows(GumbelCudaRows rows, const T* grad, const T* y, T* dx, double* partials) {
  using C = Compute<T>;
  const BlockTeam team;
  constexpr int width = MemoryRow<T, BlockTeam>::width;
  const int64_t n = rows.n;
  const bool packed = packs_fit<width>(grad, n) && packs_fit<width>(y, n) && packs_fit<width>(dx, n);
  const MemoryRow<T, BlockTeam> memory{team, n, packed};
  for (int64_t at = blockIdx.x; at < rows.count; at += gridDim.x) {
    const TilePlace place(rows, at, rows.rows_per_group, 1);
    const C tau = valid_tau<C>(rows, place.group);
    const Divider<C> over_tau(tau);
    const T *g = grad + at * n, *p = y + at * n;
    GumbelGradient<entmax, C, Sum> gradient;
    memory.read([&](int64_t, C g_i, C p_i) { gradient.add(g_i, p_i); },
                [&] {
                  gradient.weighted.end_chain();
                  gradient.weights.end_chain();
                },
                g, p);
    gradient.reduce(team);
    memory.map(
        dx + at * n,
        [&](C g_i, C p_i) {
          const C dz = gradient.dz(g_i, p_i);
          if (partials) gradient.tau_terms.add(dz * gradient.tau_weight(p_i));
          return over_tau(dz);
        },
        [&] { gradient.tau_terms.end_chain(); }, g, p);
    if (partials) store_tau_partial<entmax>(gradient.tau_terms.value(), double(tau), partials + at);
  }
}

// Reads each column twice.
template <bool entmax, class T, int kWarps>
__global__ void __launch_bounds__(ColumnTeam<kWarps>::threads)
    gumbel_backward_columns(GumbelCudaRows rows, RowTiles tiles, const T* grad, const T* y, T* dx, double* partials) {
  using C = Compute<T>;
  using Team = ColumnTeam<kWarps>;
  const Team team{int(rows.inner)};
  for (int64_t t = blockIdx.x; t < tiles.count; t += gridDim.x) {
    const TilePlace place(rows, t, tiles.per_group, Team::columns);
    const C tau = valid_tau<C>(rows, place.group);
    const Divider<C> over_tau(tau);
    const int n = place.row_in_group + team.column() < rows.rows_per_group ? int(rows.n) : 0;
    const int64_t start = team.start(place.row + team.column(), rows.n);
    GumbelGradient<entmax, C, ShortSum> gradient;
    each_of_column(team, n, grad + start, y + start, [&](int, int64_t, C g, C p) { gradient.add(g, p); });
    gradient.reduce(team);
    T* const out = dx + start;
    each_of_column(team, n, grad + start, y + start, [&](int, int64_t i, C g, C p) {
      const C dz = gradient.dz(g, p);
      if (partials) gradient.tau_terms.add(dz * gradient.tau_weight(p));
      out[i] = narrow<T>(over_tau(dz));
    });
    if (partials) store_tau_partial<entmax>(double(gradient.tau_terms.value()), double(tau), partials + t);
  }
}

// dτ of `count` temperatures, each the sum of per_tau consecutive partials.
static __global__ void __launch_bounds__(1024)
    gumbel_tau_gradient(const double* partials, int64_t per_tau, int64_t count, void* dtau, DType dtype) {
  const BlockTeam team;
  for (int64_t t = blockIdx.x; t < count; t += gridDim.x) {
    double sum = 0;
    for (int64_t i = team.rank(); i < per_tau; i += team.size()) sum += partials[t * per_tau + i];
    sum = team.sum(sum);
    if (team.rank() == 0) store_number(dtype, dtau, t, sum);
  }
}

}  // namespace automl_ext
