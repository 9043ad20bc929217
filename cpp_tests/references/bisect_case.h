// Tests of alpha-entmax, normmax and budget-sparsemax that the CPU kernels and the CUDA kernels share: values against bisection
// in long double, gradients against differences of that.
#pragma once
#include <algorithm>
#include <limits>

#include "../../csrc/bisect/bisect.h"
#include "check.h"
#include "numbers.h"

namespace automl_ext {

using Real = long double;
using Reals = std::vector<Real>;

// The root of a decreasing function.
template <class F>
Real bisected(Real low, Real high, const F& f) {
  for (int step = 0; step < 80; ++step) {
    const Real center = (low + high) / 2;
    (f(center) > 0 ? low : high) = center;
  }
  return (low + high) / 2;
}

// By the definitions: entmax [1 + a(x − τ)]₊^(1/a), normmax ∝ [x − τ]₊^(1/a), budget min(max(x − τ, 0), 1).
inline Reals bisect_reference(int map, const Reals& x, Real parameter) {
  const Real top = *std::max_element(x.begin(), x.end()), a = parameter - 1;
  if (top == -std::numeric_limits<Real>::infinity()) return Reals(x.size(), 0);
  const auto outputs = [&](Real tau) {
    Reals p;
    for (const Real e : x) {
      const Real d = e - top - tau, y = 1 + a * d;
      if (map == kBudget)
        p.push_back(std::fmin(std::fmax(d, 0), 1));
      else if (std::isinf(d))
        p.push_back(0);
      else if (map == kNormmax)
        p.push_back(d > 0 ? std::pow(d, 1 / a) : 0);
      else if (std::fabs(a) < 1e-15L)
        p.push_back(std::exp(d));
      else
        p.push_back(y > 0 ? std::exp(std::log1p(a * d) / a) : 0);
    }
    return p;
  };
  const auto sum = [&](Real tau, Real power) {
    Real total = 0;
    for (const Real e : outputs(tau)) total += power == 1 ? e : std::pow(e, power);
    return total;
  };
  if (map == kNormmax) {
    Reals p = outputs(bisected(-1, 0, [&](Real tau) { return sum(tau, parameter) - 1; }));
    Real total = 0;
    for (const Real e : p) total += e;
    for (Real& e : p) e /= total;
    return p;
  }
  if (map == kBudget) {
    Real low = 0, unmasked = 0;
    for (const Real e : x)
      if (!std::isinf(e)) low = std::fmin(low, e - top), ++unmasked;
    if (parameter >= unmasked) return outputs(low - 1);
    return outputs(bisected(low - 1, 0, [&](Real tau) { return sum(tau, 1) - parameter; }));
  }
  return outputs(bisected(0, a > 0 ? 1 / a : 1e6L, [&](Real tau) { return sum(tau, 1) - 1; }));
}

// forward(map, x, parameters of the rows, p, n, rows); backward(map, grad, p, parameters, dx, of_parameter, n, rows).
template <class T, class Forward, class Backward>
struct BisectCase {
  using C = typename Element<T>::Compute;
  static constexpr double infinity = std::numeric_limits<double>::infinity();
  Forward forward;
  Backward backward;

  std::vector<double> outputs(int map, const std::vector<double>& x, const std::vector<C>& parameters,
                              int64_t n) const {
    const std::vector<T> in = encoded<T>(x);
    std::vector<T> p(x.size());
    forward(map, in.data(), parameters.data(), p.data(), n, int64_t(parameters.size()));
    return decoded(p);
  }

  static std::vector<C> parameters_of(int map, int64_t n, int64_t rows) {
    std::vector<C> all;
    for (int64_t row = 0; row < rows; ++row) {
      const double alphas[] = {1.3, 1, 0.4, 1.0001, 1.5, 1.9, 2, sizeof(T) == 8 ? 2.5 : 1.7},
                   share = (row % 5 + 0.37) / 5;
      all.push_back(C(map == kBudget ? share * double(n) : map == kNormmax ? 1.1 + row % 3 : alphas[row % 8]));
    }
    return all;
  }

  // Rows at increasing scales, with masks, all equal, fully masked, with NaN and with +inf.
  void check_values(int64_t n, int64_t rows) const {
    Random random{unsigned(n)};
    std::vector<double> x;
    for (int64_t row = 0; row < rows; ++row) {
      std::vector<double> values = random.normals(n, std::pow(10, row % 4 - 2));
      for (int64_t i = 0; i < n; ++i) {
        if (row % 9 == 3 && i % 3 && i + 1 < n) values[i] = -infinity;
        if (row % 9 == 4) values[i] = 0.7;
        if (row % 9 == 5) values[i] = -infinity;
      }
      if (row % 9 == 6) values[n / 2] = std::nan("");
      if (row % 9 == 7) values[n - 1] = infinity;
      x.insert(x.end(), values.begin(), values.end());
    }
    x = decoded(encoded<T>(x));
    for (const int map : {kAlphaEntmax, kNormmax, kBudget, kAlphaEntmaxRaw}) {
      const std::vector<C> parameters = parameters_of(map, n, rows);
      const std::vector<double> p = outputs(map, x, parameters, n);
      for (int64_t row = 0; row < rows; ++row) {
        const Reals values(x.begin() + row * n, x.begin() + (row + 1) * n);
        bool invalid = false;
        for (const Real e : values) invalid |= std::isnan(e) || e == infinity;
        const Reals expected = invalid ? Reals(n, NAN) : bisect_reference(map, values, parameters[row]);
        const Real top = *std::max_element(expected.begin(), expected.end());
        // At α = 1 the kernels compute with α − 1 = 1e-12.
        const Real allowed = (parameters[row] == 1 ? 1e-11L * top : 0) +
                             64 * Element<C>::epsilon * top * (parameters[row] > 2 && map != kBudget ? 1e4 : 1) +
                             (sizeof(T) == 2 ? Element<T>::epsilon * top : 0);
        for (int64_t i = 0; i < n; ++i) {
          const double got = p[row * n + i];
          CHECK(invalid ? std::isnan(got) : std::fabs(got - expected[i]) <= allowed,
                "%s map %d, parameter %g, n = %lld, row %lld, i = %lld: got %.9g, expected %.9Lg", Element<T>::name,
                map, double(parameters[row]), (long long)n, (long long)row, (long long)i, got, expected[i]);
          if (values[i] == -infinity && !invalid) CHECK(got == 0, "a masked element got %g", got);
        }
      }
    }
    for (const int map : {kAlphaEntmax, kNormmax, kBudget})  // invalid parameters
      for (const double wrong : {-1.0, std::nan("")})
        for (const double got : outputs(map, x, std::vector<C>(rows, C(wrong)), n))
          CHECK(std::isnan(got), "got %g", got);
  }

  // Float32 and half precision against float64, from the same p; float64 against differences.
  template <class Exact>
  void check_gradients(int64_t n, int64_t rows, const Exact& exact) const {
    Random random{unsigned(n)};
    const std::vector<double> x = decoded(encoded<T>(random.normals(n * rows))),
                              g = decoded(encoded<T>(random.normals(n * rows)));
    for (const int map : {kAlphaEntmax, kNormmax, kBudget}) {
      const std::vector<C> parameters = parameters_of(map, n, rows);
      const std::vector<double> p = outputs(map, x, parameters, n);
      const std::vector<T> grad = encoded<T>(g), y = encoded<T>(p);
      std::vector<T> dx(x.size()), again(x.size());
      std::vector<C> of_parameter(rows);
      backward(map, grad.data(), y.data(), parameters.data(), dx.data(), of_parameter.data(), n, rows);
      backward(map, grad.data(), y.data(), parameters.data(), again.data(), static_cast<C*>(nullptr), n, rows);
      CHECK(same_bits(dx, again), "dx depends on whether the gradient of the parameter is needed");
      const std::vector<double> of_x = decoded(dx);
      for (int64_t row = 0; row < rows; ++row) {
        const auto slice = [&](const std::vector<double>& v) {
          return std::vector<double>(&v[row * n], &v[row * n] + n);
        };
        const Reals expected = exact(map, slice(x), slice(p), slice(g), parameters[row]);  // of x, and of the parameter
        Real largest = 1e-3L;
        for (int64_t i = 0; i < n; ++i) largest = std::fmax(largest, std::fabs(expected[i]));  // ignores NaN
        const Real allowed = (sizeof(T) == 8 ? 1e-6L : sizeof(T) == 4 ? 1e-4L : 2 * Element<T>::epsilon) * largest;
        for (int64_t i = 0; i < n; ++i)
          CHECK(std::isnan(expected[i]) || std::fabs(of_x[row * n + i] - expected[i]) <= allowed,
                "%s map %d, parameter %g, n = %lld, row %lld: dx[%lld] = %.9g, expected %.9Lg", Element<T>::name, map,
                double(parameters[row]), (long long)n, (long long)row, (long long)i, of_x[row * n + i], expected[i]);
        const Real scale = std::fmax(std::fabs(expected[n]), 1);
        CHECK(std::fabs(of_parameter[row] - expected[n]) <= (sizeof(C) == 8 ? 1e-5L : 1e-3L) * scale,
              "%s map %d, parameter %g, n = %lld, row %lld: of the parameter %.9g, expected %.9Lg", Element<T>::name,
              map, double(parameters[row]), (long long)n, (long long)row, double(of_parameter[row]), expected[n]);
      }
    }
  }
};

// The gradients of ⟨g, p⟩ by central differences: of every few scores, NaN for the others, and of the parameter.
inline Reals bisect_differences(int map, const std::vector<double>& x, const std::vector<double>& g, double parameter) {
  const Real h = 1e-7L;
  const auto value = [&](const Reals& at, Real alpha) {
    const Reals p = bisect_reference(map, at, alpha);
    Real total = 0;
    for (size_t i = 0; i < g.size(); ++i) total += g[i] * p[i];
    return total;
  };
  const Reals at(x.begin(), x.end());
  Reals result;
  for (size_t i = 0; i < x.size(); ++i) {
    if (i % (1 + x.size() / 6)) {
      result.push_back(NAN);
      continue;
    }
    Reals above = at, below = at;
    above[i] += h;
    below[i] -= h;
    result.push_back((value(above, parameter) - value(below, parameter)) / (2 * h));
  }
  result.push_back((value(at, parameter + h) - value(at, parameter - h)) / (2 * h));
  return result;
}

}  // namespace automl_ext
