// Entmax-1.5 (power 2) and sparsemax (power 1) by sorting, in long double (Peters et al. 2019, algorithm 2).
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace automl_ext {

// x: finite or −inf, with at least one finite value.
inline std::vector<long double> entmax_reference(const std::vector<double>& x, int power) {
  const long double top = *std::max_element(x.begin(), x.end());
  std::vector<long double> v(x.size());
  for (size_t i = 0; i < x.size(); ++i) v[i] = (x[i] - top) / power;
  std::vector<long double> sorted;
  for (const long double e : v)
    if (e > -1) sorted.push_back(e);  // smaller elements are never in the support
  std::sort(sorted.begin(), sorted.end(), std::greater<>());

  long double sum = 0, squares = 0, tau = 0;
  for (size_t k = 1; k <= sorted.size(); ++k) {
    const long double e = sorted[k - 1];
    sum += e, squares += e * e;
    const long double mean = sum / k;
    const long double under_root = (1 - (squares - sum * mean)) / k;  // power 2 only
    const long double candidate = power == 1 ? (sum - 1) / k : mean - std::sqrt(std::max(under_root, 0.0L));
    if (candidate >= e || (power == 2 && under_root < 0)) break;
    tau = candidate;
  }
  for (long double& e : v) e = std::pow(std::max(e - tau, 0.0L), power);
  return v;
}

// The gradient dx = s(g − ⟨s, g⟩/⟨s, 1⟩), with s = √p (entmax-1.5) or s = 1 (sparsemax) on the support, else 0.
inline std::vector<long double> entmax_backward_reference(const std::vector<double>& g, const std::vector<double>& p,
                                                          int power) {
  std::vector<long double> s(p.size());
  long double weighted = 0, total = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    s[i] = power == 2 ? std::sqrt((long double)p[i]) : p[i] > 0;
    weighted += s[i] * g[i], total += s[i];
  }
  for (size_t i = 0; i < p.size(); ++i) s[i] *= g[i] - (total > 0 ? weighted / total : 0);
  return s;
}

}  // namespace automl_ext
