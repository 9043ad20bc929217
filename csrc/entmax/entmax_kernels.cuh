// Entmax-1.5 and sparsemax on CUDA: the algorithm of entmax_kernel.inc, for rows shared by a team of threads.
#pragma once
#include "../common/cuda/rows.cuh"

namespace automl_ext {

constexpr int kMaxNewtonSteps = 50;  // at most 17 observed; a bound against endless loops

// τ as a sum of two numbers: on long flat rows p ≪ τ, and rounding τ to one float would be visible.
template <class C>
struct Threshold {
  C high, low;
};

// τ + step without rounding.
template <class C>
__device__ __forceinline__ Threshold<C> split(C tau, C step) {
  return {tau, step};
}
__device__ __forceinline__ Threshold<float> split(float tau, double step) {
  const double root = double(tau) + step;
  const float high = float(root);
  return {high, float(root - double(high))};
}

// Returns τ of a row of v ≤ 0; meaningless unless `is_valid`. Newton's iteration from −1 increases to the root of
// f(τ) = Σ max(v − τ, 0)^power − 1. If the closed-form root of the elements greater than τ keeps all of them, and its rounding
// error is small, it is the root. For rows in registers, at most the sums are in double, because double is slow on GPUs.
template <int power, class Team, class Row>
__device__ Threshold<typename Row::C> find_threshold(const Team& team, const Row& row, bool is_valid) {
  using C = typename Row::C;
  using Total = typename Row::Total;
  using S = typename Row::Scalar;
  constexpr S epsilon = sizeof(C) == 8 ? S(0x1p-52) : S(0x1p-23);
  // Relative error of the sums and of the values computed from them.
  constexpr S rounding = (Row::longest_chain + Team::depth + 6) * (epsilon / 2);
  C tau = -1;
  Threshold<C> result{tau, 0};
  bool done = !is_valid;
  for (int step = 0; step < kMaxNewtonSteps && team.any(!done); ++step) {
    typename Row::Accumulator of_d, of_squares;
    C smallest = 0;
    int some = 0;
    const auto add = [&](C v) {
      const bool on = v > tau;
      const C d = on ? v - tau : C(0);
      of_d.add(d);
      if (power == 2) of_squares.add(d * d);
      smallest = on && v < smallest ? v : smallest;
      some += on;
    };
    row.each(add, [&] {
      of_d.end_chain();
      of_squares.end_chain();
    });
    Total sums[3] = {Total(of_d.value()), Total(of_squares.value()), Total(some)};
    team.sum(sums, smallest);
    const S n = S(sums[2]), room = S(smallest) - S(tau);
    const S sum = S(sums[0]), squares = S(sums[1]);
    S to_root, least, to_newton;  // distances from τ: root of the elements above τ, its lower bound, Newton step
    if (power == 2) {
      const S excess = S(sums[1] - 1), square = sum * sum - n * excess, discriminant = square > 0 ? square : S(0);
      to_newton = excess / (2 * sum);
      to_root = square >= 0 ? excess / (sum + sqrt(discriminant)) : S(2);
      least = excess / (sum + sqrt(discriminant + 3 * rounding * n * squares));
    } else {
      to_root = S(sums[0] - 1) / n;
      to_newton = least = to_root - rounding * sum / n;
    }
    const bool all_stay = room - to_root >= epsilon * (S(tau) + to_root);  // elements at the threshold stay, too
    // A step of `least` does not pass the root of the row if all these elements are above τ + least.
    const S forward = room > least && least > to_newton ? least : to_newton;
    const C next = C(S(tau) + forward);
    // n is 0 if rounding moved τ to the largest element.
    if (!done && n > 0) result = all_stay ? split(tau, to_root) : Threshold<C>{next, 0};
    const bool found = all_stay && to_root - least <= -2 * epsilon * (S(tau) + to_root);
    done = done || n == 0 || found || !(next > tau);
    tau = done ? tau : next;
  }
  return result;
}

// τ of a row of up to kItems elements in the registers of one thread, in closed form. With the elements sorted, one is in
// the support if the sum F of (v − it)^power over the larger ones is less than 1. All terms are positive: nothing cancels.
template <int power, class T, class Team, int kItems>
__device__ __forceinline__ Threshold<Compute<T>> closed_threshold(const RegisterRow<T, Team, kItems>& row) {
  using C = Compute<T>;
  C v[kItems];
#pragma unroll
  for (int j = 0; j < kItems; ++j) v[j] = row.values[j] > C(-1) ? row.values[j] : C(-1);  // not in the support
  sort_decreasing(v);
  C distances = 0, of_powers = 0;  // Σ (v_j − v_k) and Σ (v_j − v_k)^power over j < k
  C least = v[0], sum = 0, f = 0, count = 1;
#pragma unroll
  for (int k = 1; k < kItems; ++k) {
    const C gap = v[k - 1] - v[k], before = distances;
    distances += C(k) * gap;
    of_powers = power == 2 ? of_powers + gap * (before + distances) : distances;
    const bool on = of_powers < 1;
    least = on ? v[k] : least;
    sum = on ? distances : sum;
    f = on ? of_powers : f;
    count = on ? C(k + 1) : count;
  }
  // The root of Σ (v − least + below)^power = 1 over the support.
  const C lacking = 1 - f;
  if (power == 1) return {least, -lacking / count};
  const C high = least - lacking / (sum + sqrt(sum * sum + count * lacking));
  // A Newton step for the rounding errors of the root.
  C of_d = 0, of_squares = -1;
#pragma unroll
  for (int j = kItems - 1; j >= 0; --j) {
    const C d = v[j] > high ? v[j] - high : C(0);
    of_d += d;
    of_squares += d * d;
  }
  return {high, of_squares / (2 * of_d)};
}

// The most candidates of a row that one warp takes: 4 KB of shared memory.
template <class C>
constexpr int kCandidates = 4096 / int(sizeof(C));

// Shifts the row and returns its τ.
template <int power, class Team, class Row, class C>
__device__ __forceinline__ Threshold<C> shifted_threshold(const Team& team, Row& row, C top, C scale, bool is_valid) {
  row.shift(top, scale, [](C) {});
  if constexpr (Team::depth == 0 && Row::longest_chain <= 8)  // one thread has all of the few elements
    return closed_threshold<power>(row);
  else
    return find_threshold<power>(team, row, is_valid);
}
// Only elements greater than −1 can be in the support: one in fifty of a long row of normal numbers. If there are few, one
// warp finds the threshold from a list of them.
template <int power, class Row, class C>
__device__ __forceinline__ Threshold<C> shifted_threshold(const BlockTeam& team, Row& row, C top, C scale,
                                                          bool is_valid) {
  using List = SharedRow<C, WarpTeam<32>, C>;
  KERNEL_SHARED_PACKS(C, candidates, kCandidates<C>);
  KERNEL_SHARED(C, threshold, 2);
  int own = 0;
  row.shift(top, scale, [&](C v) { own += v > C(-1); });
  const auto [first, total] = team.share(own < kCandidates<C> ? own : kCandidates<C> + 1);
  if (total > kCandidates<C>) return find_threshold<power>(team, row, is_valid);
  int at = first;
  row.each([&](C v) {
    if (v > C(-1)) candidates[at++] = v;
  });
  const int padded = (total + List::width - 1) / List::width * List::width;
  if (total + team.rank() < padded) candidates[total + team.rank()] = -1;
  __syncthreads();
  if (team.rank() < 32) {
    const WarpTeam<32> warp;
    const Threshold<C> found = find_threshold<power>(warp, List(warp, candidates, padded, true), is_valid);
    if (team.rank() == 0) {
      threshold[0] = found.high;
      threshold[1] = found.low;
    }
  }
  __syncthreads();
  return {threshold[0], threshold[1]};
}

// A NaN or +inf makes its row NaN; a row of only −inf is 0.
template <class C>
__device__ __forceinline__ bool is_nan_row(C top, C scale) {
  return !(top < infinity<C>()) || scale != scale;
}
template <class C>
__device__ __forceinline__ bool is_valid_row(C top, C scale) {
  return !is_nan_row(top, scale) && top > -infinity<C>();
}

// Stores p of a row that is shifted by its largest element.
template <int power, class T, class Row, class C>
__device__ __forceinline__ void store_entmax(const Row& row, Threshold<C> tau, C top, C scale, T* out) {
  const bool is_valid = is_valid_row(top, scale);
  const C instead = is_nan_row(top, scale) ? not_a_number<C>() : C(0);
  // τ is exact up to 2 epsilon·|τ|: less than that above τ, an element is at the threshold, and p is exactly 0. A rounding error
  // in its place would put the element into the support of the derivatives.
  const C exactness = -2 * (sizeof(C) == 8 ? C(0x1p-52) : C(0x1p-23)) * (tau.high + tau.low);
  row.store(out, [&](C v) {
    const C above = (v - tau.high) - tau.low, d = above > exactness ? above : C(0);
    return is_valid ? (power == 2 ? d * d : d) : instead;
  });
}

// Computes p from scale·x, given the largest x of the row. scale is ½ for entmax-1.5 and 1 for sparsemax, each divided by the
// temperature.
template <int power, class T, class Team, class Row, class C>
__device__ __forceinline__ void entmax_below(const Team& team, Row& row, C top, C scale, T* out) {
  const Threshold<C> tau = shifted_threshold<power>(team, row, top, scale, is_valid_row(top, scale));
  store_entmax<power>(row, tau, top, scale, out);
}

template <class Team, class Row>
__device__ __forceinline__ typename Row::C largest_of(const Team& team, const Row& row) {
  using C = typename Row::C;
  C top = -infinity<C>();
  row.each([&](C x) { top = larger(x, top); });
  return team.largest(top);
}

template <int power, class T, class Team, class Row>
__device__ __forceinline__ void entmax_row(const Team& team, Row& row, T* out) {
  using C = typename Row::C;
  entmax_below<power>(team, row, largest_of(team, row), power == 2 ? C(0.5) : C(1), out);
}

// kLanes threads per row of up to kLanes·kItems values, in registers.
template <int power, class T, int kLanes, int kItems>
__global__ void __launch_bounds__(128, 4) entmax_short_rows(const T* x, T* p, int64_t rows, int64_t n) {
  using C = Compute<T>;
  using Row = RegisterRow<T, WarpTeam<kLanes>, kItems>;
  const WarpTeam<kLanes> team;
  const bool packed = packs_fit<Row::width>(x, n) && packs_fit<Row::width>(p, n);
  const int64_t rows_per_block = blockDim.x / kLanes;
  for (int64_t first = blockIdx.x * rows_per_block; first < rows; first += gridDim.x * rows_per_block) {
    const int64_t at = first + threadIdx.x / kLanes;
    Row row(team, x + at * n, at < rows ? int(n) : 0, packed, -infinity<C>());
    entmax_row<power>(team, row, p + at * n);
  }
}

// Rows whose elements are `inner` apart, as columns of up to kWarps·kItems values in registers.
template <int power, class T, int kWarps, int kItems>
__global__ void __launch_bounds__(ColumnTeam<kWarps>::threads, (kColumnBlocks<kWarps>))
    entmax_columns(const T* x, T* p, int64_t count, int64_t n, int64_t inner) {
  using Team = ColumnTeam<kWarps>;
  const Team team{int(inner)};
  for (int64_t first = blockIdx.x * int64_t(Team::columns); first < count;
       first += gridDim.x * int64_t(Team::columns)) {
    const int64_t at = first + team.column(), start = team.start(at, n);
    RegisterRow<T, Team, kItems> row(team, x + start, at < count ? int(n) : 0, false);
    entmax_row<power>(team, row, p + start);
  }
}

// The blocks of entmax_medium_rows on a multiprocessor, for 80 registers per thread, or 128 in double. Some devices allow 16.
template <class T, int kThreads>
constexpr int kMediumBlocks = (sizeof(T) == 8 ? 512 : 768) / (kThreads < 64 ? 64 : kThreads);

// One block per row of up to kThreads·kItems values, in registers.
template <int power, class T, int kThreads, int kItems>
__global__ void __launch_bounds__(kThreads, (kMediumBlocks<T, kThreads>))
    entmax_medium_rows(const T* x, T* p, int64_t rows, int64_t n) {
  using Row = RegisterRow<T, FixedBlockTeam<kThreads>, kItems>;
  const BlockTeam team;
  const bool packed = packs_fit<Row::width>(x, n) && packs_fit<Row::width>(p, n);
  for (int64_t at = blockIdx.x; at < rows; at += gridDim.x) {
    Row row({}, x + at * n, int(n), packed);
    entmax_row<power>(team, row, p + at * n);
  }
}

// One block per row, in shared memory.
template <int power, class T>
__global__ void __launch_bounds__(kRowThreads, 1) entmax_long_rows(const T* x, T* p, int64_t rows, int64_t n) {
  KERNEL_DYNAMIC_SHARED(Compute<T>, values);
  const BlockTeam team;
  constexpr int width = MemoryRow<T, BlockTeam>::width;
  const bool packed = packs_fit<width>(x, n) && packs_fit<width>(p, n);
  for (int64_t at = blockIdx.x; at < rows; at += gridDim.x) {
    Compute<T> top = -infinity<Compute<T>>();
    SharedRow<T, BlockTeam> row(team, x + at * n, n, packed, values, [&](Compute<T> v) { top = larger(v, top); });
    entmax_below<power>(team, row, team.largest(top), power == 2 ? Compute<T>(0.5) : Compute<T>(1), p + at * n);
  }
}

// The gradient dx of the scores, from the gradient g of the probabilities p: dx = s(g − ⟨s, g⟩/⟨s, 1⟩). For entmax-1.5
// s = √p: the Jacobian of α-entmax with s = p^(2 − α) (Peters et al. 2019), for α = 3/2. For sparsemax s is 1 on the support,
// where p > 0, and else 0 (Martins & Astudillo 2016, section 2.5). Outside the support dx is 0, even if g is infinite or NaN.
template <int power, class C>
__device__ __forceinline__ C support_weight(C p) {
  if (power == 2) return sqrt(p);
  return p > 0 ? C(1) : p;  // keeps 0 and NaN
}
template <class C>
__device__ __forceinline__ C supported(C s, C value) {
  return s > 0 ? value : s;  // keeps 0 and NaN
}
template <class C, class Total>
__device__ __forceinline__ C weighted_mean(const Total (&sums)[2]) {
  return sums[1] == 0 ? C(0) : C(sums[0]) / C(sums[1]);
}

template <int power, class T, int kLanes, int kItems>
__global__ void __launch_bounds__(128, 4)
    entmax_backward_short_rows(const T* grad, const T* p, T* dx, int64_t rows, int64_t n) {
  using C = Compute<T>;
  using Row = RegisterRow<T, WarpTeam<kLanes>, kItems>;
  const WarpTeam<kLanes> team;
  constexpr int width = Row::width;
  const bool packed = packs_fit<width>(grad, n) && packs_fit<width>(p, n) && packs_fit<width>(dx, n);
  const int64_t rows_per_block = blockDim.x / kLanes;
  for (int64_t first = blockIdx.x * rows_per_block; first < rows; first += gridDim.x * rows_per_block) {
    const int64_t at = first + threadIdx.x / kLanes;
    const int length = at < rows ? int(n) : 0;
    const Row g(team, grad + at * n, length, packed, C(0)), y(team, p + at * n, length, packed, C(0));
    ShortSum<C> weighted, weights;
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      const C s = support_weight<power>(y.values[j]);
      weighted.add(supported(s, s * g.values[j]));
      weights.add(s);
    }
    C sums[2] = {weighted.value(), weights.value()};
    team.sum(sums);
    const C mean = weighted_mean<C>(sums);
    g.store_items(dx + at * n, [&](int j) {
      const C s = support_weight<power>(y.values[j]);
      return supported(s, s * (g.values[j] - mean));
    });
  }
}

// Reads each column twice, as entmax_backward_long_rows does each row.
template <int power, class T, int kWarps>
__global__ void __launch_bounds__(ColumnTeam<kWarps>::threads)
    entmax_backward_columns(const T* grad, const T* p, T* dx, int64_t count, int64_t n, int64_t inner) {
  using C = Compute<T>;
  using Team = ColumnTeam<kWarps>;
  const Team team{int(inner)};
  for (int64_t first = blockIdx.x * int64_t(Team::columns); first < count;
       first += gridDim.x * int64_t(Team::columns)) {
    const int64_t at = first + team.column(), start = team.start(at, n);
    const int length = at < count ? int(n) : 0;
    C weighted[4] = {}, weights[4] = {};  // chains of additions
    each_of_column(team, length, grad + start, p + start, [&](int k, int64_t, C g, C y) {
      const C s = support_weight<power>(y);
      weighted[k] += supported(s, s * g);
      weights[k] += s;
    });
    C sums[2] = {(weighted[0] + weighted[1]) + (weighted[2] + weighted[3]),
                 (weights[0] + weights[1]) + (weights[2] + weights[3])};
    team.sum(sums);
    const C mean = weighted_mean<C>(sums);
    T* const out = dx + start;
    each_of_column(team, length, grad + start, p + start, [&](int, int64_t i, C g, C y) {
      const C s = support_weight<power>(y);
      out[i] = narrow<T>(supported(s, s * (g - mean)));
    });
  }
}

// Reads each row twice; the second time it is in the cache.
template <int power, class T>
__global__ void __launch_bounds__(kRowThreads, 1)
    entmax_backward_long_rows(const T* grad, const T* p, T* dx, int64_t rows, int64_t n) {
  using C = Compute<T>;
  const BlockTeam team;
  constexpr int width = MemoryRow<T, BlockTeam>::width;
  const bool packed = packs_fit<width>(grad, n) && packs_fit<width>(p, n) && packs_fit<width>(dx, n);
  const MemoryRow<T, BlockTeam> memory{team, n, packed};
  for (int64_t at = blockIdx.x; at < rows; at += gridDim.x) {
    const T *g = grad + at * n, *y = p + at * n;
    Sum<C> weighted, weights;
    memory.read(
        [&](int64_t, C g_i, C y_i) {
          const C s = support_weight<power>(y_i);
          weighted.add(supported(s, s * g_i));
          weights.add(s);
        },
        [&] {
          weighted.end_chain();
          weights.end_chain();
        },
        g, y);
    double sums[2] = {weighted.value(), weights.value()};
    team.sum(sums);
    const C mean = weighted_mean<C>(sums);
    const auto dx_of = [&](C g_i, C y_i) {
      const C s = support_weight<power>(y_i);
      return supported(s, s * (g_i - mean));
    };
    memory.map(dx + at * n, dx_of, NoChains(), g, y);
  }
}

}  // namespace automl_ext
