// The gradients of entmax-1.5 and sparsemax against their formula in long double.
#include "../instruction_sets/run.h"
#include "../references/entmax_reference.h"
#include "../references/numbers.h"

using namespace automl_ext;

static constexpr double max_ulps = 2;  // in ulp of the largest |s|·|g| of the row

template <class T>
struct Backward {
  EntmaxKernels::Backward kernel;
  int power;
  double worst = 0;

  std::vector<double> rows(const std::vector<double>& g, const std::vector<double>& p, int64_t n, int64_t begin,
                           int64_t end) {
    const std::vector<T> grad = encoded<T>(g), y = encoded<T>(p);
    std::vector<T> dx = encoded<T>(std::vector<double>(g.size(), 7));
    std::vector<T> with_support = dx;
    kernel(grad.data(), y.data(), nullptr, dx.data(), n, begin, end);
    std::vector<EntmaxSupport<T>> supports;
    for (int64_t row = 0; row < int64_t(y.size()) / n; ++row) supports.push_back(support_of(y.data() + row * n, n));
    kernel(grad.data(), y.data(), supports.data(), with_support.data(), n, begin, end);
    for (size_t i = 0; i < dx.size(); ++i) {
      const double without = Element<T>::decode(dx[i]), with = Element<T>::decode(with_support[i]);
      CHECK(with == without || (with != with && without != without),
            "n = %lld, element %zu: %g with the support, %g without",
            (long long)n, i, with, without);
    }
    return decoded(dx);
  }

  static EntmaxSupport<T> support_of(const T* p, int64_t n) {
    EntmaxSupport<T> support{};
    for (int64_t i = 0; i < n; ++i) {
      const double y = Element<T>::decode(p[i]);
      if (y == 0) continue;
      if (y != y || support.count == support.kMost) {
        support.count = -1;
        break;
      }
      support.at[support.count] = int32_t(i);
      support.p[support.count++] = p[i];
    }
    return support;
  }

  void check_row(const std::vector<double>& g_, const std::vector<double>& p_) {
    const std::vector<double> g = decoded(encoded<T>(g_)), p = decoded(encoded<T>(p_));
    const int64_t n = int64_t(g.size());
    const std::vector<double> dx = rows(g, p, n, 0, 1);
    const std::vector<long double> expected = entmax_backward_reference(g, p, power);
    double largest_g = 0, largest_s = 0;
    for (int64_t i = 0; i < n; ++i) {
      largest_g = std::fmax(largest_g, std::fabs(g[i]));
      largest_s = std::fmax(largest_s, power == 2 ? std::sqrt(p[i]) : p[i] > 0);
    }
    const double unit = ulp<T>(largest_s * largest_g);
    for (int64_t i = 0; i < n; ++i) {
      const double error = double(std::fabs(dx[i] - expected[i])) / unit;
      worst = std::fmax(worst, error);
      CHECK(error <= max_ulps, "%s power %d, n = %lld, i = %lld: got %.17g, expected %.17Lg (%.2f ulp)",
            Element<T>::name, power, (long long)n, (long long)i, dx[i], expected[i], error);
      if (p[i] == 0) CHECK(dx[i] == 0, "outside the support: got %g", dx[i]);
    }
  }

  void check_sizes() {
    Random random{8};
    for (const int64_t n : {1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 100, 1000, 5000, 100003})
      for (const double scale : {0.01, 1.0, 10.0}) {
        const std::vector<long double> p = entmax_reference(random.normals(n, scale), power);
        check_row(random.normals(n, scale), std::vector<double>(p.begin(), p.end()));
      }
    check_row(random.normals(33), std::vector<double>(33, 0));  // a fully masked row
  }

  // Outside the support dx is 0 and g is ignored, whatever it holds. Rows with small and with large supports.
  void check_off_support() {
    Random random{10};
    for (const int64_t n : {2, 8, 16, 19, 33, 100, 300, 1000, 5000})
      for (const double scale : {0.5, 3.0}) {
        const int64_t count = 3;
        std::vector<double> p, g = random.normals(n * count), clean = g;
        for (int64_t row = 0; row < count; ++row) {
          const std::vector<long double> one = entmax_reference(random.normals(n, scale), power);
          p.insert(p.end(), one.begin(), one.end());
          p[row * n + (row + 1) % n] = 0;
        }
        p = decoded(encoded<T>(p));
        for (int64_t i = 0; i < n * count; ++i)
          if (p[i] == 0) g[i] = i % 3 ? std::nan("") : i % 2 ? HUGE_VAL : -HUGE_VAL, clean[i] = 0;
        const std::vector<double> got = rows(g, p, n, 0, count), expected = rows(clean, p, n, 0, count);
        g = clean;
        for (int64_t i = 0; i < n; ++i) g[i] = std::nan("");  // the whole first row
        const std::vector<double> bad = rows(g, p, n, 0, count);
        for (int64_t i = 0; i < n * count; ++i) {
          CHECK(got[i] == expected[i], "%s power %d, n = %lld, i = %lld, p %g: got %g, expected %g", Element<T>::name,
                power,
                (long long)n, (long long)i, p[i], got[i], expected[i]);
          CHECK(i < n && p[i] ? std::isnan(bad[i]) : bad[i] == expected[i], "n = %lld, i = %lld, p %g: got %g",
                (long long)n,
                (long long)i, p[i], bad[i]);
        }
      }
  }

  void check_rows() {  // all rows contain full groups of rows; rows 1 to 4 contain none
    Random random{9};
    const int64_t count = 35;
    for (int64_t n = 6; n <= 34; ++n) {
      std::vector<double> p = random.normals(n * count);
      for (double& e : p) e = std::fabs(e);
      p[2 * n + 5] = std::nan("");  // row 2 has no gradient
      const std::vector<double> g = random.normals(n * count), whole = rows(g, p, n, 0, count), part = rows(g, p, n, 1, 4);
      for (int64_t i = 0; i < n * count; ++i) {
        const bool in_nan_row = i / n == 2, in_part = i >= n && i < 4 * n;
        CHECK(std::isnan(whole[i]) == in_nan_row, "n = %lld, element %lld: got %g", (long long)n, (long long)i,
              whole[i]);
        if (!in_part)
          CHECK(part[i] == 7, "rows 1 to 4, element %lld was written: %g", (long long)i, part[i]);
        else if (!in_nan_row)
          CHECK(part[i] == whole[i], "n = %lld, rows 1 to 4, element %lld: got %g, expected %g", (long long)n,
                (long long)i,
                part[i], whole[i]);
      }
    }
  }
};

template <class T>
static void test_type() {
  for (const int power : {1, 2}) {
    const auto& table = power == 2 ? entmax_kernels().entmax15_backward : entmax_kernels().sparsemax_backward;
    Backward<T> backward{table[Element<T>::dtype], power};
    backward.check_sizes();
    backward.check_off_support();
    backward.check_rows();
    std::printf("%-8s %-9s error at most %.3f ulp of the largest |s||g|\n", Element<T>::name,
                power == 2 ? "entmax15" : "sparsemax", backward.worst);
  }
}

static void test(const InstructionSet&) {
  test_type<double>();
  test_type<float>();
  test_type<bfloat16>();
  test_type<float16>();
}

int main() { return run(test); }
