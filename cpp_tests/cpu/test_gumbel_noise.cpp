// Gumbel noise of random words and edge cases: finite, and close to its formula, for each instruction set.
#include <cmath>

#include "../instruction_sets/run.h"
#include "../references/numbers.h"

using namespace automl_ext;

static std::vector<uint32_t> interesting_words() {
  std::vector<uint32_t> words;
  for (uint32_t i = 0; i < (1u << 16); ++i) words.insert(words.end(), {i, ~i});
  for (uint32_t bit = 0; bit < 32; ++bit)  // near powers of two
    for (int i = -16; i < 16; ++i) words.push_back((1u << bit) + uint32_t(i));
  Random random{2};
  while (words.size() % 16 != 0 || words.size() < (1u << 20)) words.push_back(uint32_t(random.bits()));
  return words;
}

// v as documented: rounded to C, and below 1 in float.
template <class C>
static C uniform_of(uint32_t word) {
  const C v = C(word) * C(0x1p-32) + C(0x1p-33);
  return std::is_same_v<C, float> && v > C(1 - 0x1p-24) ? C(1 - 0x1p-24) : v;
}

template <class C>
static void test_noise(const MathInternals<C>& math, double tolerance) {
  const std::vector<uint32_t> words = interesting_words();
  const int64_t n = int64_t(words.size());
  std::vector<C> noise(n);
  math.gumbel(words.data(), noise.data(), n);
  double worst = 0, lowest = 0, highest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const long double expected = -std::log(-std::log1p(-(long double)uniform_of<C>(words[i])));
    const double error = double(std::fabs(noise[i] - expected)) / std::fmax(1, std::fabs(double(expected)));
    CHECK(std::isfinite(noise[i]), "word %08x: got %g", words[i], double(noise[i]));
    CHECK(error <= tolerance, "word %08x: got %.17g, expected %.17Lg", words[i], double(noise[i]), expected);
    worst = std::fmax(worst, error);
    lowest = std::fmin(lowest, double(noise[i])), highest = std::fmax(highest, double(noise[i]));
  }
  std::printf("%s noise in [%.4f, %.4f], error at most %.3g·max(1, |g|)\n", Element<C>::name, lowest, highest, worst);
}

static void test(const InstructionSet& set) {
  // Half of the documented bound, so that any two instruction sets agree within the bound.
  test_noise(set.internals.float_math, 5e-7);
  test_noise(set.internals.double_math, 2e-15);
}

int main() { return run(test); }
