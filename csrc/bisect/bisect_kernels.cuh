// Alpha-entmax, normmax and budget-sparsemax on CUDA: the formulas of bisect_root.inc, for rows shared by a team of threads.
#pragma once
#include "../common/cuda/rows.cuh"
#include "bisect.h"

namespace automl_ext {

constexpr int64_t kBisectShortRow = 256;
constexpr int kBisectFreeSteps = 8;  // then every other step halves the bracket
template <class C>
constexpr int kBisectSteps = kBisectFreeSteps + (sizeof(C) == 8 ? 104 : 48);
template <class C>
constexpr C kBisectEpsilon = sizeof(C) == 8 ? C(0x1p-52) : C(0x1p-23);

template <class C>
struct RowParameters {
  const C* values;
  int64_t stride;
  C value;

  explicit RowParameters(const BisectParameter& parameter)
      : values(static_cast<const C*>(parameter.values)),
        stride(parameter.stride),
        value(C(parameter.value < kLargest<C> ? parameter.value : kLargest<C>)) {}
  __device__ __forceinline__ C operator()(int64_t row) const { return values ? values[row * stride] : value; }
};

// The bracket of a root, and the next point to try: the proposed one if it is inside, and the center if it is not, or if
// the steps have become too many.
template <class C>
struct RootBracket {
  C low, high;
  __device__ __forceinline__ C next(C at, bool root_is_above, C proposed, int step) {
    low = root_is_above ? at : low;
    high = root_is_above ? high : at;
    const bool halve = step >= kBisectFreeSteps && step % 2;
    return proposed >= low && proposed <= high && !halve ? proposed : low + (high - low) * C(0.5);
  }
};

// t^exponent, and t, of d; 0 where t is not positive or d is masked.
template <class C>
struct StretchedPower {
  C value, t;
  __device__ __forceinline__ StretchedPower(C d, C scale, C exponent) {
    const C u = d * scale;
    const bool on = u > C(-1) && u < infinity<C>();
    const C safe = on ? u : C(0), y = std::exp(std::log1p(safe) * exponent);
    value = on ? y : C(0);
    t = C(1) + safe;
  }
};

template <class C>
__device__ __forceinline__ C stretch_of(C a, C log_largest) {
  const C exponent = -a * log_largest, most = C(sizeof(C) == 8 ? 600 : 80);
  return std::exp(exponent < most ? exponent : most);
}

// λ of a row of d; meaningless if `done` from the start.
template <class Team, class Row, class C>
__device__ C find_log_largest(const Team& team, const Row& row, C n, C a, C power, bool done) {
  const C exponent = power / a, ratio_of_powers = a / power;
  const C small = a <= C(0.5) ? C(sizeof(C) == 8 ? 1e-6 : 1e-3) : a <= 1 ? C(sizeof(C) == 8 ? 4e-9 : 6e-5) : C(-1);
  // The lower end is the root if all scores are equal: it must be inside in spite of rounding errors.
  RootBracket<C> bracket{-std::log(n) * (1 + 8 * kBisectEpsilon<C>) / power, 0};
  C at = 0, closest = 0, least = infinity<C>();
  for (int step = 0; step < kBisectSteps<C> && team.any(!done); ++step) {
    const C scale = stretch_of(a, at);
    typename Row::Accumulator t0, t1, t2;
    row.each(
        [&](C d) {
          const StretchedPower<C> y(d, scale, exponent);
          const C inverse = 1 / y.t;
          t0.add(y.value);
          t1.add(y.value * inverse);
          t2.add(y.value * inverse * inverse);
        },
        [&] {
          t0.end_chain();
          t1.end_chain();
          t2.end_chain();
        });
    typename Row::Total sums[3] = {t0.value(), t1.value(), t2.value()};
    team.sum(sums);
    const C s0 = C(sums[0]), s1 = C(sums[1]), s2 = C(sums[2]);
    const C h = power * at + std::log(s0), newton = -(h / power) * (s0 / s1);
    closest = std::fabs(h) < least ? at : closest;
    least = std::fabs(h) < least ? std::fabs(h) : least;
    const C bend = s2 / s1 - s1 / s0 + ratio_of_powers * (1 - s2 / s1);  // h″/(P·h′)
    const C divisor = 1 + newton * power * bend * C(0.5);
    const C halley = newton / (divisor > C(0.5) ? divisor < C(2) ? divisor : C(2) : C(0.5));
    const C proposed = at + halley, next = bracket.next(at, h < 0, proposed, step);
    const C rounding = (1 + std::fabs(power * at)) * (2 * kBisectEpsilon<C>);
    const bool exact = std::fabs(h) <= rounding || bracket.high - bracket.low <= rounding / power;
    const bool found = exact || (next == proposed && std::fabs(next - at) <= small);
    // Large α: even adjacent numbers differ much in h, so that the end of the bracket matters.
    at = done ? at : exact ? closest : next;
    done = done || found;
  }
  return at;
}

// The bits of a number as an integer, in the order of the numbers; the inverse is the same function.
template <class Bits, class C>
__device__ __forceinline__ Bits ordered_bits_of(C v) {
  Bits bits;
  memcpy(&bits, &v, sizeof(bits));
  return bits ^ ((bits >> (8 * sizeof(C) - 1)) & Bits(~(Bits(1) << (8 * sizeof(C) - 1))));
}
// A number between a and b: in the middle of all floating-point numbers between them, rounded down.
template <class C>
__device__ __forceinline__ C between_of(C a, C b) {
  using Bits = std::conditional_t<sizeof(C) == 8, int64_t, int32_t>;
  const Bits i = ordered_bits_of<Bits>(a), j = ordered_bits_of<Bits>(b), middle = (i & j) + ((i ^ j) >> 1);
  C value;
  memcpy(&value, &middle, sizeof(value));
  const Bits bits = ordered_bits_of<Bits>(value);
  memcpy(&value, &bits, sizeof(value));
  return value;
}

template <class C>
__device__ __forceinline__ C clip_of(C v, C low, C high) {
  return v > low ? v < high ? v : high : low;
}

// τ as the sum of two numbers, so that large scores do not reduce the precision of the others.
template <class C>
struct BudgetTau {
  C base, rest;
  __device__ __forceinline__ C distance(C x) const { return clip_of(x - base, C(-2), C(2)) - rest; }
};

template <class Team, class Row, class C>
__device__ BudgetTau<C> find_budget_tau(const Team& team, const Row& row, C budget, C smallest, C largest, bool done) {
  // Below every unmasked entry by at least 1, also where 1 is less than the rounding error.
  const C margin = std::fabs(smallest) * (4 * kBisectEpsilon<C>);
  C low = smallest - (margin > 1 ? margin : C(1)), high = largest;
  for (int step = 0; step < 8 * int(sizeof(C)) + 8; ++step) {
    const C at = high - low < 16 ? low + (high - low) * C(0.5) : between_of(low, high);
    const bool searching = !done && high - low > 1 && at > low && at < high;
    if (!team.any(searching)) break;
    typename Row::Accumulator sum;
    row.each([&](C x) { sum.add(clip_of(x - at, C(0), C(1))); }, [&] { sum.end_chain(); });
    typename Row::Total sums[1] = {sum.value()};
    team.sum(sums);
    const bool above = sums[0] >= budget;
    low = searching && above ? at : low;
    high = searching && !above ? at : high;
  }
  // Now the root is in [high − 1, high].
  BudgetTau<C> tau{high, 0};
  RootBracket<C> bracket{-1, 0};
  for (int step = 0; step < kBisectSteps<C> && team.any(!done); ++step) {
    typename Row::Accumulator sum, free;
    row.each(
        [&](C x) {
          const C d = tau.distance(x);
          sum.add(clip_of(d, C(0), C(1)));
          free.add(d > 0 && d < 1 ? C(1) : C(0));
        },
        [&] {
          sum.end_chain();
          free.end_chain();
        });
    typename Row::Total sums[2] = {sum.value(), free.value()};
    team.sum(sums);
    const C excess = C(sums[0] - budget), newton = tau.rest + excess / C(sums[1]);
    const C next = bracket.next(tau.rest, excess > 0, newton, step);
    const bool exact = excess == 0, same = std::fabs(next - tau.rest) <= kBisectEpsilon<C> / 2;
    tau.rest = done || exact ? tau.rest : next;
    done = done || exact || same;
  }
  return tau;
}

template <class T, class Team, class Row, class C>
__device__ __forceinline__ void bisect_row(int map, const Team& team, Row& row, C n, C parameter, T* out) {
  C top = -infinity<C>(), low = infinity<C>(), invalid = 0;
  typename Row::Accumulator unmasked;
  row.each(
      [&](C x) {
        const bool on = x > -infinity<C>();
        top = x > top ? x : top;
        low = on && x < low ? x : low;
        // Items beyond a row in registers hold −∞.
        invalid = x < infinity<C>() ? invalid : C(1);
        unmasked.add(on ? C(1) : C(0));
      },
      [&] { unmasked.end_chain(); });
  top = team.largest(top);
  low = team.smallest(low);
  invalid = team.largest(invalid);
  typename Row::Total counts[1] = {unmasked.value()};
  team.sum(counts);
  if (map == kBudget) {
    const bool bad = invalid > 0 || !(parameter >= 0 && parameter <= n), all = parameter >= C(counts[0]);
    const BudgetTau<C> tau = find_budget_tau(team, row, parameter, low, top, bad || all);
    row.store(out, [&](C x) {
      if (bad) return not_a_number<C>();
      return all ? C(x > -infinity<C>()) : clip_of(tau.distance(x), C(0), C(1));
    });
    return;
  }
  const bool normmax = map == kNormmax, empty = top == -infinity<C>();
  const C difference = parameter - 1, a = std::fabs(difference) < C(1e-12) ? C(1e-12) : difference;
  const bool bad = invalid > 0 || !((normmax ? difference : parameter) > 0 && parameter < infinity<C>());
  row.shift(empty ? C(0) : top, normmax ? C(1) : a, [](C) {});
  const C at = find_log_largest(team, row, n, a, normmax ? parameter : C(1), bad || empty);
  const C scale = stretch_of(a, at), exponent = 1 / a;
  typename Row::Accumulator sum;
  row.each([&](C d) { sum.add(StretchedPower<C>(d, scale, exponent).value); }, [&] { sum.end_chain(); });
  typename Row::Total sums[1] = {sum.value()};
  team.sum(sums);
  const C largest = map == kAlphaEntmaxRaw ? std::exp(at) : empty ? C(0) : 1 / C(sums[0]);
  const C times = bad ? not_a_number<C>() : largest;
  row.store(out, [&](C d) { return StretchedPower<C>(d, scale, exponent).value * times; });
}

// kLanes threads per row of up to kLanes·kItems values, in registers.
template <class T, int kLanes, int kItems>
__global__ void __launch_bounds__(128, 4)
    bisect_short_rows(int map, const T* x, RowParameters<Compute<T>> parameters, T* p, int64_t rows, int64_t n) {
  using C = Compute<T>;
  using Row = RegisterRow<T, WarpTeam<kLanes>, kItems>;
  const WarpTeam<kLanes> team;
  const bool packed = packs_fit<Row::width>(x, n) && packs_fit<Row::width>(p, n);
  const int64_t rows_per_block = blockDim.x / kLanes;
  for (int64_t first = blockIdx.x * rows_per_block; first < rows; first += gridDim.x * rows_per_block) {
    const int64_t at = first + threadIdx.x / kLanes;
    Row row(team, x + at * n, at < rows ? int(n) : 0, packed, -infinity<C>());
    bisect_row(map, team, row, C(n), parameters(at < rows ? at : 0), p + at * n);
  }
}

// One block per row, which is read on each pass.
template <class T>
__global__ void __launch_bounds__(kRowThreads, 1)
    bisect_long_rows(int map, const T* x, RowParameters<Compute<T>> parameters, T* p, int64_t rows, int64_t n) {
  const BlockTeam team;
  constexpr int width = MemoryRow<T, BlockTeam>::width;
  const bool packed = packs_fit<width>(x, n) && packs_fit<width>(p, n);
  for (int64_t at = blockIdx.x; at < rows; at += gridDim.x) {
    GlobalRow<T, BlockTeam> row(team, x + at * n, n, packed);
    bisect_row(map, team, row, Compute<T>(n), parameters(at), p + at * n);
  }
}

}  // namespace automl_ext
