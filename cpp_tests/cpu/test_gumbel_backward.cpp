// The gradients of Gumbel softmax and entmax by logits and temperature, against their formulas in long double.
#include "../references/entmax_reference.h"
#include "gumbel_case.h"

using namespace automl_ext;

// Maximum error in ulp of the largest |s|·|g|/τ of the row.
template <class T>
static constexpr double max_ulps = sizeof(T) == 2 ? 0.51 : 4;

template <class T>
struct Backward {
  using C = typename Element<T>::Compute;
  GumbelKernels::Backward kernel;
  bool entmax;
  double worst = 0, worst_tau = 0;

  void check(const GumbelCase& c, double sparse) {
    Random random{11};
    std::vector<double> soft, grads = random.normals(c.n * c.count());
    for (int64_t row = 0; row < c.count(); ++row) {
      std::vector<double> p = random.normals(c.n, 3);
      double total = 0;
      for (int64_t i = 0; i < c.n; ++i) p[i] = i && random.uniform() < sparse ? 0 : std::exp(p[i]), total += p[i];
      for (const double e : p) soft.push_back(e / total);
    }
    const std::vector<T> y = encoded<T>(soft), g = encoded<T>(grads);
    std::vector<T> dx(y.size()), dx_alone(y.size()), dx_pieces(y.size());
    std::vector<double> dtau(c.count()), dtau_pieces(c.count());
    kernel(c.rows(), g.data(), y.data(), dx.data(), dtau.data(), 0, c.count());
    kernel(c.rows(), g.data(), y.data(), dx_alone.data(), nullptr, 0, c.count());
    for (int64_t row = 0, step = 1; row < c.count(); row += step, ++step)
      kernel(c.rows(), g.data(), y.data(), dx_pieces.data(), dtau_pieces.data(), row, std::min(row + step, c.count()));
    CHECK(same_bits(dx, dx_alone), "n = %lld: dx differs without dtau", (long long)c.n);
    CHECK(same_bits(dx, dx_pieces) && same_bits(dtau, dtau_pieces), "n = %lld: the result depends on the row ranges",
          (long long)c.n);
    for (int64_t row = 0; row < c.count(); ++row)
      check_row(c, decoded(std::vector<T>(g.begin() + row * c.n, g.begin() + (row + 1) * c.n)),
                decoded(std::vector<T>(y.begin() + row * c.n, y.begin() + (row + 1) * c.n)),
                decoded(std::vector<T>(dx.begin() + row * c.n, dx.begin() + (row + 1) * c.n)), dtau[row], c.tau(row));
  }

  // Outside the support of entmax, g is ignored.
  void check_off_support() {
    Random random{12};
    for (const int64_t n : {4, 8, 19, 33, 300, 1000, 5000}) {
      const GumbelCase c{n, 2, 2, {1, 2}, {0.5, 2.0}};
      std::vector<double> y(n * c.count()), clean = random.normals(n * c.count());
      for (int64_t i = 0; i < n * c.count(); ++i) y[i] = i % 5 && i % n ? 0 : 0.25;
      std::vector<double> g = clean;
      for (size_t i = 0; i < g.size(); ++i)
        if (y[i] == 0) g[i] = i % 2 ? std::nan("") : HUGE_VAL, clean[i] = 0;
      const std::vector<T> soft = encoded<T>(y), grads[] = {encoded<T>(g), encoded<T>(clean)};
      std::vector<T> dx[] = {grads[0], grads[1]};
      std::vector<double> dtau[] = {std::vector<double>(c.count()), std::vector<double>(c.count())};
      for (int i = 0; i < 2; ++i)
        kernel(c.rows(), grads[i].data(), soft.data(), dx[i].data(), dtau[i].data(), 0, c.count());
      CHECK(decoded(dx[0]) == decoded(dx[1]) && dtau[0] == dtau[1], "n = %lld: g outside the support is used",
            (long long)n);
    }
  }

  void check_row(const GumbelCase& c, const std::vector<double>& g, const std::vector<double>& y,
                 const std::vector<double>& dx, double dtau, double tau_) {
    const long double tau = C(tau_);
    std::vector<long double> dz(c.n);
    if (entmax) {
      dz = entmax_backward_reference(g, y, 2);
    } else {
      long double mean = 0;
      for (int64_t i = 0; i < c.n; ++i) mean += (long double)g[i] * y[i];
      for (int64_t i = 0; i < c.n; ++i) dz[i] = y[i] * (g[i] - mean);
    }
    double largest_s = 0, largest_g = 0;
    long double expected_dtau = 0, magnitudes = 0;
    for (int64_t i = 0; i < c.n; ++i) {
      const long double s = std::sqrt((long double)y[i]), log_y = y[i] > 0 ? std::log((long double)y[i]) : 0;
      expected_dtau -= (entmax ? 2 * dz[i] * s : dz[i] * log_y) / tau;
      largest_s = std::fmax(largest_s, entmax ? double(s) : y[i]), largest_g = std::fmax(largest_g, std::fabs(g[i]));
      magnitudes += std::fabs(entmax ? 2 * s * s * largest_g : y[i] * largest_g * log_y) / tau;
    }
    for (int64_t i = 0; i < c.n; ++i) {
      const double error = double(std::fabs(dx[i] - dz[i] / tau)) / ulp<T>(double(largest_s * largest_g / tau));
      worst = std::fmax(worst, error);
      CHECK(error <= max_ulps<T>, "%s n = %lld, i = %lld: dx %.17g, expected %.17Lg (%.2f ulp)", Element<T>::name,
            (long long)c.n, (long long)i, dx[i], dz[i] / tau, error);
    }
    if (magnitudes == 0) return;
    const double error = double(std::fabs(dtau - expected_dtau)) / ulp<C>(double(magnitudes));  // dτ is not rounded to T
    worst_tau = std::fmax(worst_tau, error);
    CHECK(error <= 5, "%s n = %lld: dtau %.17g, expected %.17Lg (%.2f ulp)", Element<T>::name, (long long)c.n, dtau,
          expected_dtau, error);
  }
};

template <class T>
static void test_type() {
  for (const bool entmax : {false, true}) {
    const GumbelKernels& table = gumbel_kernels();
    Backward<T> backward{(entmax ? table.entmax15_backward : table.softmax_backward)[Element<T>::dtype], entmax};
    for (const GumbelCase& c : gumbel_cases())
      for (const double sparse : {0.0, 0.5, 0.97}) backward.check(c, sparse);
    if (entmax) backward.check_off_support();
    std::printf("%-8s %s dx at most %.3f ulp, dtau at most %.3f ulp\n", Element<T>::name,
                entmax ? "entmax " : "softmax",
                backward.worst, backward.worst_tau);
  }
}

static void test(const InstructionSet&) {
  test_type<double>();
  test_type<float>();
  test_type<bfloat16>();
  test_type<float16>();
}

int main() { return run(test); }
