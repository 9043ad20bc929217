// Entmax-1.5 and sparsemax against sorting in long double: sizes, scales, ties, masks, invalid values, long flat rows.
#include "../instruction_sets/run.h"
#include "../references/entmax_reference.h"
#include "../references/numbers.h"

using namespace automl_ext;

static const double infinity = std::numeric_limits<double>::infinity();

// Maximum error of an output, in ulp of the row's largest value. A lane of a sum adds 64 terms before it is converted
// to double, which costs up to 10 ulp on rows of equal values. The half types only round the result.
template <class T>
static constexpr double max_ulps = sizeof(T) == 2 ? 0.51 : 10;

template <class T>
struct Forward {
  EntmaxKernels::Forward kernel;
  int power;
  double worst = 0;
  int64_t few = 0;  // number of rows whose support was stored

  std::vector<double> rows(const std::vector<double>& x, int64_t n, int64_t begin, int64_t end, double before = 7) {
    const std::vector<T> in = encoded<T>(x);
    std::vector<T> out = encoded<T>(std::vector<double>(x.size(), before));
    std::vector<char> scratch(entmax_scratch_bytes(n));
    kernel(in.data(), out.data(), nullptr, n, begin, end, scratch.data());
    check_support(in, out, n, begin, end);
    return decoded(out);
  }

  // The support must hold the indices of the nonzero p in order, and their values. p must not depend on its
  // computation.
  void check_support(const std::vector<T>& in, const std::vector<T>& p, int64_t n, int64_t begin, int64_t end) {
    if (!entmax_support_bytes(n, sizeof(T))) return;
    CHECK(entmax_support_bytes(n, sizeof(T)) == sizeof(EntmaxSupport<T>), "a support has %zu bytes",
          sizeof(EntmaxSupport<T>));
    std::vector<T> again = p;
    std::vector<char> scratch(entmax_scratch_bytes(n));
    std::vector<EntmaxSupport<T>> supports(size_t(in.size()) / n);
    for (auto& support : supports) std::memset(&support, 0x55, sizeof support);
    kernel(in.data(), again.data(), supports.data(), n, begin, end, scratch.data());
    CHECK(same_bits(again, p), "n = %lld: p differs if the support is stored", (long long)n);
    for (int64_t row = begin; row < end; ++row) {
      const EntmaxSupport<T>& kept = supports[row];
      int64_t count = 0;
      bool nan = false;
      for (int64_t i = 0; i < n; ++i) {
        const double y = Element<T>::decode(p[row * n + i]);
        nan |= y != y;
        if (y == 0) continue;
        if (kept.count >= 0)
          CHECK(count < kept.count && kept.at[count] == i && Element<T>::decode(kept.p[count]) == y,
                "n = %lld: support element %lld is not %lld", (long long)n, (long long)count, (long long)i);
        ++count;
      }
      CHECK(kept.count == -1 || (kept.count == count && !nan), "n = %lld: support of %lld elements, expected %lld",
            (long long)n, (long long)kept.count, (long long)count);
      few += kept.count >= 0;
      for (int64_t k = kept.count; k > 0 && k % 2; ++k)
        CHECK(Element<T>::decode(kept.p[k]) == 0, "n = %lld: no zeros after the support", (long long)n);
    }
  }

  void check_row(const std::vector<double>& values, const char* what) {
    const std::vector<double> x = decoded(encoded<T>(values));  // rounded to T
    const int64_t n = int64_t(x.size());
    const std::vector<double> p = rows(x, n, 0, 1);
    const std::vector<long double> expected = entmax_reference(x, power);
    const double unit = ulp<T>(double(*std::max_element(expected.begin(), expected.end())));
    for (int64_t i = 0; i < n; ++i) {
      const double error = double(std::fabs(p[i] - expected[i])) / unit;
      worst = std::fmax(worst, error);
      CHECK(error <= max_ulps<T> && p[i] >= 0,
            "%s power %d %s, n = %lld, i = %lld: got %.17g, expected %.17Lg (%.2f ulp)",
            Element<T>::name, power, what, (long long)n, (long long)i, p[i], expected[i], error);
      if (x[i] == -infinity) CHECK(p[i] == 0, "a masked element got %g", p[i]);
    }
    long double sum = 0;
    for (const double e : p) sum += e;
    // The sum shows a systematic error of many small outputs, such as τ rounded to float.
    CHECK(sizeof(T) == 2 || std::fabs(sum - 1) <= 0x1p-18, "%s power %d %s, n = %lld: sum %.17Lg",
          Element<T>::name, power, what, (long long)n, sum);
  }

  void check_sizes() {
    Random random{4};
    for (const int64_t n : {1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 1000, 2049, 5000})
      for (const double scale : {1e-3, 0.1, 1.0, 3.0, 30.0, 1e4}) {
        std::vector<double> x = random.normals(n, scale);
        check_row(x, "normal");
        for (double& e : x) e = std::round(e / scale * 2) * scale / 2;
        check_row(x, "ties");
        for (double& e : x)
          if (random.uniform() < 0.5) e = -infinity;
        x[n - 1] = 0.25;
        check_row(x, "masked");
        check_row(std::vector<double>(n, scale), "all equal");
      }
    const double large = std::is_same_v<T, float16> ? 6e4 : 3e38;  // differences overflow
    check_row({large, -large, large, 0}, "huge");
    check_row({-large, -large / 2}, "huge and negative");
    std::vector<double> x(3001, -large);  // sums of blocks overflow to −inf or +inf
    for (size_t i = 0; i < x.size(); i += 7) x[i] = i % 2 ? -infinity : large / 2;
    check_row(x, "huge and long");
  }

  void check_threshold() {  // τ is x of all elements but the first four and the last: they get exactly 0
    for (const int64_t n : {7, 16, 31, 40, 300, 2049, 5000})
      for (const int64_t some : {n - 1, std::min<int64_t>(n - 1, 40)}) {
        std::vector<double> x(n, -2);
        for (int64_t i = 0; i < some; ++i) x[i] = i < 4 ? 1 : power == 2 ? 0 : 0.75;
        check_row(x, "elements at the threshold");
        const std::vector<double> p = rows(x, n, 0, 1);
        for (int64_t i = 4; i < n; ++i)
          CHECK(p[i] == 0, "%s power %d, n = %lld: p[%lld] = %g at the threshold", Element<T>::name, power, (long long)n,
                (long long)i, p[i]);
      }
  }

  void check_long_rows() {  // p is much smaller than the rounding error of τ in float
    Random random{5};
    for (const double noise : {0.0, 1e-6, 1e-3, 0.1}) {
      std::vector<double> x(1000003, 0.7);
      for (double& e : x) e += noise * random.normal();
      check_row(x, "long and flat");
    }
    check_row(random.normals(1000003), "long");
    std::vector<double> x(1000003, -0.5 * power);  // half of the mass is far below the maximum
    x[77] = 0;
    check_row(x, "long and flat under a maximum");
  }

  void check_invalid_rows() {
    for (const int64_t n : {1, 7, 16, 33, 100, 2300})
      for (int64_t at = 0; at < n; at += n > 1000 ? 37 : n > 8 ? 5 : 1) {
        Random random{6};
        const std::vector<double> good = random.normals(n);
        for (const double bad : {std::nan(""), -std::nan(""), infinity}) {
          std::vector<double> x = good;  // rows: good, bad, good
          x.insert(x.end(), good.begin(), good.end());
          x.insert(x.end(), good.begin(), good.end());
          x[n + at] = bad;
          const std::vector<double> p = rows(x, n, 0, 3), alone = rows(good, n, 0, 1);
          for (int64_t i = 0; i < n; ++i) {
            CHECK(std::isnan(p[n + i]), "%g at %lld of %lld: got %g", bad, (long long)at, (long long)n, p[n + i]);
            CHECK(p[i] == alone[i] && p[2 * n + i] == alone[i], "an invalid row changed adjacent rows");
          }
        }
      }
    for (const int64_t n : {1, 16, 33, 2300})
      for (const double p : rows(std::vector<double>(n, -infinity), n, 0, 1)) CHECK(p == 0, "all -inf: got %g", p);
  }

  void check_pieces() {  // all rows contain full groups of rows; rows 3 to 7 contain none
    Random random{7};
    const int64_t count = 35;
    for (int64_t n = 1; n <= 34; ++n) {
      const std::vector<double> x = random.normals(n * count), whole = rows(x, n, 0, count), part = rows(x, n, 3, 7);
      for (int64_t i = 0; i < n * count; ++i)
        CHECK(part[i] == (i >= 3 * n && i < 7 * n ? whole[i] : 7), "n = %lld, rows 3 to 7, element %lld: got %g",
              (long long)n,
              (long long)i, part[i]);
    }
  }
};

template <class T>
static void test_type() {
  for (const int power : {1, 2}) {
    const auto& table = power == 2 ? entmax_kernels().entmax15 : entmax_kernels().sparsemax;
    Forward<T> forward{table[Element<T>::dtype], power};
    forward.check_sizes();
    forward.check_threshold();
    if (sizeof(T) >= 4) forward.check_long_rows();
    forward.check_invalid_rows();
    forward.check_pieces();
    CHECK(forward.few > 100, "%lld supports were stored", (long long)forward.few);
    std::printf("%-8s %-9s error at most %.3f ulp of the row's largest value\n", Element<T>::name,
                power == 2 ? "entmax15" : "sparsemax", forward.worst);
  }
}

static void test(const InstructionSet&) {
  const std::vector<long double> by_hand = entmax_reference({0, 0, -infinity, 1}, 1);  // sparsemax: τ = 0
  CHECK(by_hand[3] == 1 && by_hand[0] == 0 && by_hand[2] == 0, "the reference is wrong");
  const std::vector<long double> third = entmax_reference({2, 2, 2, -5}, 2);
  CHECK(std::fabs(third[0] - 1.0L / 3) < 1e-18L && third[3] == 0, "the reference is wrong");
  test_type<double>();
  test_type<float>();
  test_type<bfloat16>();
  test_type<float16>();
}

int main() { return run(test); }
