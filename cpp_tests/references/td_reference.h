// Checks the targets of Q-learning, element by element.
#pragma once
#include "../../csrc/targets/targets.h"
#include "check.h"
#include "numbers.h"

namespace automl_ext {

// run(x) fills x.out. online: a separate Q selects the actions (double Q-learning). own: each row has its own discount.
template <class T, class Run>
void check_td_targets(int64_t rows, int64_t actions, bool online, bool own, Random& random, const Run& run) {
  using C = typename Element<T>::Compute;
  const auto decode = [](T v) { return C(Element<T>::decode(v)); };
  // Multiples of ½, so that many actions have equal values.
  const auto random_q = [&] {
    std::vector<double> x = random.normals(rows * actions);
    for (double& v : x) v = std::nearbyint(2 * v) / 2;
    return encoded<T>(x);
  };
  const T nan = Element<T>::encode(std::nan(""));
  std::vector<T> q = random_q(), online_q = random_q(), discounts = encoded<T>(random.normals(rows));
  const std::vector<T> rewards = encoded<T>(random.normals(rows, 3));
  std::vector<uint8_t> terminated(rows);
  for (int64_t row = 0; row < rows; ++row) {
    if (row % 5 == 1) q[row * actions + row % actions] = nan;  // in some rows before the maximum, in some after it
    if (row % 5 == 2) online_q[row * actions + row % actions] = online_q[row * actions + actions - 1] = nan;
    if (row % 5 == 3)
      for (int64_t j = row * actions; j < (row + 1) * actions; ++j) q[j] = online_q[j] = Element<T>::encode(-INFINITY);
    terminated[row] = row % 3 == 0;
    if (terminated[row]) discounts[row] = nan;  // must not be read
  }
  std::vector<T> out(rows);
  const double gamma = 0.9;
  const std::vector<T>& selector = online ? online_q : q;
  run(TdTargets{rows, actions, q.data(), selector.data(), rewards.data(), own ? discounts.data() : nullptr,
                terminated.data(), out.data(), gamma});
  for (int64_t row = 0; row < rows; ++row) {
    int64_t best = row * actions;
    for (int64_t at = best + 1; at < (row + 1) * actions; ++at) {
      const C v = decode(selector[at]), top = decode(selector[best]);
      if (v > top || (v != v && top == top)) best = at;
    }
    C expected = decode(rewards[row]);
    if (!terminated[row]) expected += (own ? decode(discounts[row]) : C(gamma)) * decode(q[best]);
    const T rounded = Element<T>::encode(expected);
    const double got = Element<T>::decode(out[row]), wanted = Element<T>::decode(rounded);
    CHECK(got == wanted || (got != got && wanted != wanted),
          "%s td_targets, %lld actions, row %lld: got %.17g, expected %.17g", Element<T>::name, (long long)actions,
          (long long)row, got, wanted);
  }
}

}  // namespace automl_ext
