// exp, log and log(1 − v) against wider arithmetic: errors of at most 2 ulp, and results at the limits of their
// domains.
#include <cmath>

#include "../instruction_sets/run.h"
#include "../references/numbers.h"

using namespace automl_ext;

static constexpr double max_ulps = 2;  // as documented in csrc/common/cpu/simd_math.inc

// The largest error of a function, in ulp.
struct Worst {
  const char* name;
  double ulps = 0, at = 0;

  template <class C>
  void record(C x, C y, long double expected) {
    const double error = double(std::fabs(y - expected)) / ulp<C>(double(expected));
    if (error > ulps) ulps = error, at = double(x);
    CHECK(error <= max_ulps, "%s(%.17g): got %.17g, expected %.17Lg, %.2f ulp", name, double(x), double(y), expected,
          error);
  }
  void print() const { std::printf("%-22s at most %.3f ulp, at %.9g\n", name, ulps, at); }
};

template <class C>
static void record_exp(Worst& worst, C x, C y, long double expected) {
  const C smallest = std::numeric_limits<C>::min(), largest = std::numeric_limits<C>::max();
  if (x != x)
    CHECK(y != y, "exp(NaN): got %g", double(y));
  else if (expected < smallest)
    CHECK(y == 0 && !std::signbit(y), "exp(%.17g) is subnormal: got %g, expected 0", double(x), double(y));
  else if (expected > largest + (long double)ulp<C>(double(largest)) / 2)
    CHECK(std::isinf(y) && y > 0, "exp(%.17g): got %g, expected inf", double(x), double(y));
  else if (expected <= largest)
    worst.record(x, y, expected);
}

static float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
static double double_of(uint64_t bits) {
  double x;
  std::memcpy(&x, &bits, 8);
  return x;
}

// Every 97th float bit pattern. The reference is computed in double, which is accurate enough for float.
static void test_float(const MathInternals<float>& math) {
  Worst of_exp{"exp, float"}, of_log{"log, float"}, of_log1p{"log(1 - v), float"};
  constexpr int batch = 4096;
  std::vector<float> x(batch), y(batch), positive(batch), z(batch), v(batch), w(batch);
  for (uint64_t bits = 0; bits < (uint64_t(1) << 32); bits += 97 * batch) {
    for (int i = 0; i < batch; ++i) {
      x[i] = float_of(uint32_t(bits + 97 * i));
      positive[i] = std::isnormal(x[i]) ? std::fabs(x[i]) : 1;
      v[i] = x[i] > 0 && x[i] < 1 ? x[i] : 0.5f;
    }
    math.exp(x.data(), y.data(), batch);
    math.log(positive.data(), z.data(), batch);
    math.log1p_negated(v.data(), w.data(), batch);
    for (int i = 0; i < batch; ++i) {
      record_exp(of_exp, x[i], y[i], std::exp(double(x[i])));
      of_log.record(positive[i], z[i], std::log(double(positive[i])));
      if (v[i] != 0.5f && v[i] > 1e-30f) of_log1p.record(v[i], w[i], std::log1p(-double(v[i])));
    }
  }
  of_exp.print(), of_log.print(), of_log1p.print();
}

static void test_double(const MathInternals<double>& math) {
  Worst of_exp{"exp, double"}, of_log{"log, double"}, of_log1p{"log(1 - v), double"};
  constexpr int batch = 4096;
  std::vector<double> x(batch), y(batch);
  Random random{1};
  for (int round = 0; round < 64; ++round) {
    for (double& e : x) e = round % 4 ? -746 + 1457 * random.uniform() : double_of(random.bits());
    math.exp(x.data(), y.data(), batch);
    for (int i = 0; i < batch; ++i) record_exp(of_exp, x[i], y[i], std::exp((long double)x[i]));

    // Numbers of all magnitudes, then numbers near 1 at all distances.
    for (double& e : x) e = double_of(random.bits() & ~(uint64_t(1) << 63));
    if (round % 2)
      for (double& e : x) e = 1 + (random.uniform() - 0.5) * std::ldexp(1.0, -int(random.bits() % 52));
    for (double& e : x) e = std::isnormal(e) ? e : 1;
    math.log(x.data(), y.data(), batch);
    for (int i = 0; i < batch; ++i) of_log.record(x[i], y[i], std::log((long double)x[i]));

    // (0, 1), and numbers near its ends.
    for (double& e : x) e = std::ldexp(1 - random.uniform(), -int(random.bits() % (round % 2 ? 40 : 2)));
    for (double& e : x) e = round % 4 == 3 && e > 1e-15 ? 1 - e : e;
    for (double& e : x) e = e > 0 && e < 1 ? e : 0.5;
    math.log1p_negated(x.data(), y.data(), batch);
    for (int i = 0; i < batch; ++i) of_log1p.record(x[i], y[i], std::log1p(-(long double)x[i]));
  }
  of_exp.print(), of_log.print(), of_log1p.print();
}

// The values around each limit, and special values.
template <class C>
static void test_edges(const MathInternals<C>& math, C lowest, C highest) {
  const C infinity = std::numeric_limits<C>::infinity(), tiny = std::numeric_limits<C>::min();
  std::vector<C> x = {0, -C(0), infinity, -infinity, C(std::nan("")), -C(std::nan("")), tiny, -tiny,
                      std::numeric_limits<C>::denorm_min(), std::numeric_limits<C>::max(),
                      std::numeric_limits<C>::lowest(), 1, -1};
  C below = lowest, above = lowest;
  C below_high = highest, above_high = highest;
  for (int i = 0; i < 200; ++i) {
    x.insert(x.end(), {below, above, below_high, above_high});
    below = std::nextafter(below, -infinity), above = std::nextafter(above, infinity);
    below_high = std::nextafter(below_high, -infinity), above_high = std::nextafter(above_high, infinity);
  }
  std::vector<C> y(x.size());
  math.exp(x.data(), y.data(), int64_t(x.size()));
  Worst worst{"exp at its limits"};
  for (size_t i = 0; i < x.size(); ++i) record_exp(worst, x[i], y[i], std::exp((long double)x[i]));
  CHECK(y[0] == 1 && y[1] == 1, "exp(0): got %.9g", double(y[0]));
  worst.print();

  const std::vector<C> one = {1, tiny, std::numeric_limits<C>::max()};
  std::vector<C> logs(3);
  math.log(one.data(), logs.data(), 3);
  CHECK(logs[0] == 0, "log(1): got %g", double(logs[0]));
  Worst log_worst{"log at its limits"};
  for (int i = 1; i < 3; ++i) log_worst.record(one[i], logs[i], std::log((long double)one[i]));
}

static void test(const InstructionSet& set) {
  test_float(set.internals.float_math);
  test_double(set.internals.double_math);
  test_edges<float>(set.internals.float_math, -87.3365447505531f, 88.7228390520684f);
  test_edges<double>(set.internals.double_math, -708.396418532264106, 709.782712893383973);
}

int main() { return run(test); }
