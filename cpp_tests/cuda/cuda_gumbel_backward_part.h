// The CUDA kernels of the gradients of Gumbel softmax and entmax, run on the CPU: gradients of logits and temperatures
// against their formulas in long double. A part of test_cuda_gumbel.cpp.
#pragma once
#include "cuda_gumbel_case.h"

namespace gumbel_backward_part {
using namespace automl_ext;

template <class T>
struct Backward {
  using C = typename Element<T>::Compute;
  bool entmax;
  double worst = 0, worst_tau = 0;

  struct Result {
    std::vector<T> dx;
    std::vector<double> dtau;
  };
  Result run(const Case& c, const std::vector<T>& g, const std::vector<T>& y, unsigned order, size_t offset, bool tau) {
    cuda_on_cpu::seed = order;
    std::vector<T> grad = transposed(g, c.n, c.inner), soft = transposed(y, c.n, c.inner), dx(offset + g.size());
    grad.insert(grad.begin(), offset, T()), soft.insert(soft.begin(), offset, T());
    const OnDevice device(c);
    std::vector<double> partials(gumbel_tau_partials(device.rows)), doubles(c.taus.size());
    std::vector<float> floats(c.taus.size());
    std::vector<bfloat16> bfloats(c.taus.size());
    std::vector<float16> halves(c.taus.size());
    void* outputs[] = {doubles.data(), floats.data(), bfloats.data(), halves.data(), nullptr};
    launch_gumbel_backward(entmax, Element<T>::dtype, device.rows, grad.data() + offset, soft.data() + offset,
                           dx.data() + offset, partials.data(), tau ? outputs[c.tau_dtype] : nullptr, nullptr);
    dx.erase(dx.begin(), dx.begin() + offset);
    dx = transposed(dx, c.n, c.inner, true);
    const std::vector<double> dtaus[] = {doubles, decoded(floats), decoded(bfloats), decoded(halves), {}};
    return {dx, dtaus[c.tau_dtype]};
  }

  void check(const Case& c, double sparse) {
    Random random{11};
    std::vector<double> soft, grads = random.normals(c.n * c.count());
    for (int64_t row = 0; row < c.count(); ++row) {
      std::vector<double> p = random.normals(c.n, 3);
      double total = 0;
      for (int64_t i = 0; i < c.n; ++i) p[i] = i && random.uniform() < sparse ? 0 : std::exp(p[i]), total += p[i];
      for (const double e : p) soft.push_back(e / total);
    }
    const std::vector<T> y = encoded<T>(soft), g = encoded<T>(grads);
    const Result got = run(c, g, y, 1, 0, true);
    for (unsigned order = 2; order <= cuda_on_cpu::orders(2); ++order) {
      const Result again = run(c, g, y, order, 0, true);
      CHECK(same_bits(again.dx, got.dx) && same_bits(again.dtau, got.dtau),
            "n = %lld: the result depends on the order of threads", (long long)c.n);
    }
    CHECK(same_bits(run(c, g, y, 1, 0, false).dx, got.dx), "n = %lld: dx differs without dtau", (long long)c.n);
    check_against_formula(c, decoded(g), decoded(y), got);
    check_against_formula(c, decoded(g), decoded(y), run(c, g, y, 1, 1, true));
    if (!entmax) return;
    std::vector<double> bad = decoded(g), clean = bad;  // g is ignored outside the support
    for (size_t i = 0; i < bad.size(); ++i)
      if (soft[i] == 0) bad[i] = i % 2 ? NAN : HUGE_VAL, clean[i] = 0;
    const Result with = run(c, encoded<T>(bad), y, 1, 0, true), without = run(c, encoded<T>(clean), y, 1, 0, true);
    CHECK(same_bits(with.dx, without.dx) && same_bits(with.dtau, without.dtau),
          "n = %lld: g outside the support is used", (long long)c.n);
  }

  void check_against_formula(const Case& c, const std::vector<double>& all_g, const std::vector<double>& all_y,
                             const Result& got) {
    std::vector<long double> dtau(c.taus.size()), magnitudes(c.taus.size());
    for (int64_t row = 0; row < c.count(); ++row) {
      const auto begin = row * c.n, end = begin + c.n;
      const std::vector<double> g(all_g.begin() + begin, all_g.begin() + end);
      const std::vector<double> y(all_y.begin() + begin, all_y.begin() + end);
      const int64_t group = c.taus.size() > 1 ? row / c.rows_per_group : 0;
      const long double tau = C(c.tau(row));
      std::vector<long double> dz(c.n);
      if (entmax) {
        dz = entmax_backward_reference(g, y, 2);
      } else {
        long double mean = 0;
        for (int64_t i = 0; i < c.n; ++i) mean += (long double)g[i] * y[i];
        for (int64_t i = 0; i < c.n; ++i) dz[i] = y[i] * (g[i] - mean);
      }
      double largest_s = 0, largest_g = 0;
      for (int64_t i = 0; i < c.n; ++i) {
        largest_s = std::fmax(largest_s, entmax ? std::sqrt(y[i]) : y[i]);
        largest_g = std::fmax(largest_g, std::fabs(g[i]));
      }
      for (int64_t i = 0; i < c.n; ++i) {
        const long double s = std::sqrt((long double)y[i]), log_y = y[i] > 0 ? std::log((long double)y[i]) : 0;
        dtau[group] -= (entmax ? 2 * dz[i] * s : dz[i] * log_y) / tau;
        magnitudes[group] += std::fabs(entmax ? 2 * s * s * largest_g : y[i] * largest_g * log_y) / tau;
        const double value = Element<T>::decode(got.dx[begin + i]);
        const double error = double(std::fabs(value - dz[i] / tau)) / ulp<T>(double(largest_s * largest_g / tau));
        worst = std::fmax(worst, error);
        CHECK(error <= max_ulps<T>, "%s n = %lld, i = %lld: dx %.17g, expected %.17Lg (%.2f ulp)", Element<T>::name,
              (long long)c.n, (long long)i, value, dz[i] / tau, error);
      }
    }
    if (c.tau_dtype == kDTypes) return;
    const double epsilons[] = {0x1p-52, 0x1p-23, 0x1p-7, 0x1p-10};
    for (size_t t = 0; t < dtau.size(); ++t) {
      // Accurate to 5 ulp of C, then rounded to the dtype of τ.
      const double unit = 5 * ulp<C>(double(magnitudes[t])) + 0.51 * std::fabs(double(dtau[t])) * epsilons[c.tau_dtype];
      const double error = double(std::fabs(got.dtau[t] - dtau[t])) / unit;
      worst_tau = std::fmax(worst_tau, error);
      CHECK(error <= 1 || magnitudes[t] == 0, "%s n = %lld: dtau %.17g, expected %.17Lg (%.2f of the bound)",
            Element<T>::name, (long long)c.n, got.dtau[t], dtau[t], error);
    }
  }

  // dx is finite for a τ that is subnormal in C, or 0 there, and NaN for an invalid τ.
  void check_special_taus(int64_t n, double least) {
    const Case c{n, 1, 2, {0}, {least, -1.0}, kFloat64};
    std::vector<double> soft(2 * n), grad(2 * n);
    for (int64_t row = 0; row < 2; ++row) soft[row * n] = 1, grad[row * n + n - 1] = 1;
    const Result got = run(c, encoded<T>(grad), encoded<T>(soft), 1, 0, true);
    for (int64_t i = 0; i < n; ++i)
      CHECK(Element<T>::decode(got.dx[i]) == 0 && std::isnan(Element<T>::decode(got.dx[n + i])), "%g, %g",
            double(Element<T>::decode(got.dx[i])), double(Element<T>::decode(got.dx[n + i])));
    CHECK(got.dtau[0] == 0 && std::isnan(got.dtau[1]), "%g, %g", got.dtau[0], got.dtau[1]);
  }
};

// Several passes over a tile, several tiles and rows per block. The launches do this only for much larger sizes.
template <class T, int lanes, int items>
static void test_few_blocks(int64_t n) {
  const Case c{n, 3 * (kShortRowThreads / lanes) + 1, 3, {0}, {1.0, 0.5, 2.0}, kFloat32};
  Random random{12};
  std::vector<double> soft(n * c.count());
  for (double& p : soft) p = random.uniform() / n;
  const std::vector<T> grad = encoded<T>(random.normals(n * c.count())), y = encoded<T>(soft);
  const OnDevice device(c);
  const RowTiles tiles{6, 2, 2 * (kShortRowThreads / lanes)};
  std::vector<T> dx[2] = {std::vector<T>(y.size()), std::vector<T>(y.size())};
  std::vector<double> partials[2] = {std::vector<double>(6), std::vector<double>(6)};
  for (const int few : {0, 1})
    KERNEL_LAUNCH((gumbel_backward_short_rows<true, T, lanes, items>), few ? 2 : 6, kShortRowThreads, 0, nullptr,
                  device.rows, tiles, grad.data(), y.data(), dx[few].data(), partials[few].data());
  CHECK(same_bits(dx[0], dx[1]) && same_bits(partials[0], partials[1]),
        "n = %lld: the result depends on the number of blocks", (long long)n);
  const auto launched = Backward<T>{true}.run(c, grad, y, 1, 0, true);
  CHECK(same_bits(dx[0], launched.dx), "n = %lld: dx depends on the tiles", (long long)n);
  for (int t = 0; t < 3; ++t) {
    const double sum = partials[0][2 * t] + partials[0][2 * t + 1];
    CHECK(std::fabs(sum - launched.dtau[t]) <= 1e-5 * std::fabs(sum), "n = %lld: dtau %g, from the tiles %g",
          (long long)n, launched.dtau[t], sum);
  }
}

// Block sizes that the launches do not choose. TSan detects all races only in small blocks.
template <bool entmax, class T>
static void test_blocks() {
  for (const int64_t n : {33, 1000})
    for (const int threads : {32, 96, 192, kRowThreads}) {
      const Case c{n, 3, 2, {0}, {1.0, 0.5}, kFloat32};
      Random random{13};
      std::vector<double> soft(n * c.count());
      for (double& p : soft) p = 2 * random.uniform() / n;
      const std::vector<T> grad = encoded<T>(random.normals(n * c.count())), y = encoded<T>(soft);
      const OnDevice device(c);
      typename Backward<T>::Result got{std::vector<T>(y.size()), {}};
      std::vector<double> partials(c.count());
      std::vector<float> dtau(c.groups);
      KERNEL_LAUNCH((gumbel_backward_long_rows<entmax, T>), 2, threads, 0, nullptr, device.rows, grad.data(), y.data(),
                    got.dx.data(), partials.data());
      KERNEL_LAUNCH(gumbel_tau_gradient, 1, threads, 0, nullptr, partials.data(), c.rows_per_group, c.groups,
                    dtau.data(), kFloat32);
      got.dtau = decoded(dtau);
      Backward<T>{entmax}.check_against_formula(c, decoded(grad), decoded(y), got);
    }
}

template <class T>
static void test_type() {
  for (const bool entmax : {false, true}) {
    Backward<T> backward{entmax};
    for (const Case& c : cases()) backward.check(c, c.n % 2 ? 0.7 : 0.0);
    for (const Case& c : column_cases()) backward.check(c, c.n % 2 ? 0.7 : 0.3);
    for (const int64_t n : {2, 7, 33, 200, 3000})
      for (const double least : {1e-41, 1e-46, 4e-320}) backward.check_special_taus(n, least);
    std::printf("%-8s %s: dx at most %.3f ulp; dtau %.3f of its bound\n", Element<T>::name,
                entmax ? "entmax " : "softmax", backward.worst, backward.worst_tau);
  }
  test_few_blocks<T, 1, 4>(3);
  test_few_blocks<T, 1, 8>(8);
  test_few_blocks<T, 8, 4>(17);
  test_few_blocks<T, 32, 4>(40);
  test_few_blocks<T, 32, 16>(136);
  test_blocks<false, T>();
  test_blocks<true, T>();
}

static void test() {
  for_compiled_types([](auto element) { test_type<decltype(element)>(); });
}

}  // namespace gumbel_backward_part
