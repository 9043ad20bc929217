// exp, log and log(1 − v) against wider arithmetic: at most 2 ulp, and what they say of their edges.
#include <cmath>

#include "../instruction_sets/run.h"
#include "../references/numbers.h"

using namespace automl_ext;

static constexpr double max_ulps = 2;  // what csrc/common/cpu/simd_math.inc promises

// The largest error seen of one function, in units of the last place.
struct Worst {
  const char* name;
  double ulps = 0, at = 0;

  template <class C>
  void see(C x, C y, long double expected) {
    const double error = double(std::fabs(y - expected)) / ulp<C>(double(expected));
    if (error > ulps) ulps = error, at = double(x);
    CHECK(error <= max_ulps, "%s(%.17g): got %.17g, expected %.17Lg, %.2f ulp", name, double(x), double(y), expected,
          error);
  }
  void print() const { std::printf("%-22s at most %.3f ulp, at %.9g\n", name, ulps, at); }
};

template <class C>
static void see_exp(Worst& worst, C x, C y, long double expected) {
  const C smallest = std::numeric_limits<C>::min(), largest = std::numeric_limits<C>::max();
  if (x != x)
    CHECK(y != y, "exp(NaN): got %g", double(y));
  else if (expected < smallest)
    CHECK(y == 0 && !std::signbit(y), "exp(%.17g) is not normal: got %g, expected 0", double(x), double(y));
  else if (expected > largest + (long double)ulp<C>(double(largest)) / 2)
    CHECK(std::isinf(y) && y > 0, "exp(%.17g): got %g, expected inf", double(x), double(y));
  else if (expected <= largest)
    worst.see(x, y, expected);
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

// Every 97th float bit pattern; double arithmetic is exact enough beside a float's 2⁻²⁴.
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
      see_exp(of_exp, x[i], y[i], std::exp(double(x[i])));
      of_log.see(positive[i], z[i], std::log(double(positive[i])));
      if (v[i] != 0.5f && v[i] > 1e-30f) of_log1p.see(v[i], w[i], std::log1p(-double(v[i])));
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
    for (int i = 0; i < batch; ++i) see_exp(of_exp, x[i], y[i], std::exp((long double)x[i]));

    // All magnitudes, then beside 1 at all distances.
    for (double& e : x) e = double_of(random.bits() & ~(uint64_t(1) << 63));
    if (round % 2)
      for (double& e : x) e = 1 + (random.uniform() - 0.5) * std::ldexp(1.0, -int(random.bits() % 52));
    for (double& e : x) e = std::isnormal(e) ? e : 1;
    math.log(x.data(), y.data(), batch);
    for (int i = 0; i < batch; ++i) of_log.see(x[i], y[i], std::log((long double)x[i]));

    // (0, 1) and its tails.
    for (double& e : x) e = std::ldexp(1 - random.uniform(), -int(random.bits() % (round % 2 ? 40 : 2)));
    for (double& e : x) e = round % 4 == 3 && e > 1e-15 ? 1 - e : e;
    for (double& e : x) e = e > 0 && e < 1 ? e : 0.5;
    math.log1p_negated(x.data(), y.data(), batch);
    for (int i = 0; i < batch; ++i) of_log1p.see(x[i], y[i], std::log1p(-(long double)x[i]));
  }
  of_exp.print(), of_log.print(), of_log1p.print();
}

// The last values before each limit, and the values that have a name.
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
  for (size_t i = 0; i < x.size(); ++i) see_exp(worst, x[i], y[i], std::exp((long double)x[i]));
  CHECK(y[0] == 1 && y[1] == 1, "exp(0): got %.9g", double(y[0]));
  worst.print();

  const std::vector<C> one = {1, tiny, std::numeric_limits<C>::max()};
  std::vector<C> logs(3);
  math.log(one.data(), logs.data(), 3);
  CHECK(logs[0] == 0, "log(1): got %g", double(logs[0]));
  Worst log_worst{"log at its limits"};
  for (int i = 1; i < 3; ++i) log_worst.see(one[i], logs[i], std::log((long double)one[i]));
}

static void test(const InstructionSet& set) {
  test_float(set.inside.of_float);
  test_double(set.inside.of_double);
  test_edges<float>(set.inside.of_float, -87.3365447505531f, 88.7228390520684f);
  test_edges<double>(set.inside.of_double, -708.396418532264106, 709.782712893383973);
}

int main() { return run(test); }
