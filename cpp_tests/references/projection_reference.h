// Checks the categorical projection against its definition: each atom's mass is split between two adjacent atoms.
#pragma once
#include "../../csrc/targets/targets.h"
#include "check.h"
#include "numbers.h"

namespace automl_ext {

// project(x) fills x.out, `rows` rows of `atoms` elements. discount: of all rows that are not terminated; NaN: each row
// has its own.
template <class T, class Project>
void check_projection(int64_t rows, int64_t atoms, double discount, Random& random, const Project& project) {
  std::vector<double> p = random.normals(rows * atoms);
  for (double& x : p) x = std::fabs(x) / double(atoms);
  std::vector<T> probs = encoded<T>(p), discounts = encoded<T>(random.normals(rows));
  const std::vector<T> rewards = encoded<T>(random.normals(rows, 3));
  std::vector<uint8_t> terminated(rows);
  for (int64_t row = 0; row < rows; row += 4) {
    terminated[row] = 1;
    discounts[row] = Element<T>::encode(std::nan(""));  // must not be read
    if (row % 8 == 0) probs[row * atoms + row % atoms] = Element<T>::encode(INFINITY);  // the sum is then taken as 1
  }
  std::vector<T> out(rows * atoms);
  const bool own = discount != discount;
  project(Projection{rows, atoms, probs.data(), rewards.data(), own ? discounts.data() : nullptr, terminated.data(),
                     out.data(), discount, -5, 5});
  const double step = 10 / double(atoms - 1);
  for (int64_t row = 0; row < rows; ++row) {
    const bool ignored = row % 8 == 0;
    const double reward = Element<T>::decode(rewards[row]);
    const double d = terminated[row] ? 0 : own ? Element<T>::decode(discounts[row]) : discount;
    std::vector<double> expected(atoms);
    for (int64_t j = 0; j < atoms; ++j) {
      const double target = std::fmin(5, std::fmax(-5, reward + d * (-5 + double(j) * step)));
      const double position = (target + 5) / step, probability = Element<T>::decode(probs[row * atoms + j]);
      const double mass = ignored ? 1 / double(atoms) : probability;
      const int64_t lower = std::min(int64_t(position), atoms - 2);
      expected[lower] += mass * (1 - (position - double(lower)));
      expected[lower + 1] += mass * (position - double(lower));
    }
    for (int64_t i = 0; i < atoms; ++i) {
      const double got = Element<T>::decode(out[row * atoms + i]);
      const double bound = 1e-13 * double(atoms) + 0.51 * ulp<T>(expected[i]);
      CHECK(std::fabs(got - expected[i]) <= bound,
            "%s projection, %lld atoms, row %lld, atom %lld: got %.17g, expected %.17g", Element<T>::name,
            (long long)atoms, (long long)row, (long long)i, got, expected[i]);
    }
  }
}

}  // namespace automl_ext
