// Gumbel softmax, entmax, argmax and one-hot against an element-by-element reference. Results are bitwise independent
// of the row ranges of the calls.
#include "../references/entmax_reference.h"
#include "gumbel_case.h"

using namespace automl_ext;

static const double infinity = std::numeric_limits<double>::infinity();

// Maximum error in ulp of the row's largest value. A lane of a sum adds 64 terms before it is converted to double. The
// half types only round the result.
template <class T>
static constexpr double max_ulps = sizeof(T) == 2 ? 0.51 : 10;

template <class T>
struct Outputs {
  std::vector<T> soft, one_hot;
  std::vector<int64_t> index;
};

template <class T>
struct Sampler {
  using C = typename Element<T>::Compute;
  const InstructionSet& set;
  bool entmax;
  double worst = 0;

  GumbelKernels::Sample kernel() const {
    return (entmax ? gumbel_kernels().entmax15 : gumbel_kernels().softmax)[Element<T>::dtype];
  }
  void run(const GumbelCase& c, const std::vector<T>& x, T* soft, T* one_hot, int64_t* index, int64_t begin,
           int64_t end) const {
    std::vector<char> scratch(gumbel_scratch_bytes(c.n));
    kernel()(c.rows(), x.data(), soft, one_hot, index, begin, end, scratch.data());
  }
  Outputs<T> run(const GumbelCase& c, const std::vector<T>& x) const {
    Outputs<T> out{std::vector<T>(x.size()), std::vector<T>(x.size()), std::vector<int64_t>(c.count(), -1)};
    run(c, x, out.soft.data(), out.one_hot.data(), out.index.data(), 0, c.count());
    return out;
  }

  // f(z/τ) of one row, with z = x + noise rounded to C as in the kernel.
  std::vector<long double> expected(const std::vector<C>& z, C tau) const {
    const long double top = *std::max_element(z.begin(), z.end());
    if (entmax) {  // shift-invariant
      std::vector<double> scaled(z.size());
      for (size_t i = 0; i < z.size(); ++i) scaled[i] = double((z[i] - top) / tau);
      return entmax_reference(scaled, 2);
    }
    std::vector<long double> p(z.size());
    long double total = 0;
    for (size_t i = 0; i < z.size(); ++i) total += p[i] = std::exp((z[i] - top) / tau);
    for (long double& e : p) e /= total;
    return p;
  }

  void check(const GumbelCase& c, double masked) {
    Random random{10};
    std::vector<double> logits = random.normals(c.n * c.count());
    for (int64_t i = 0; i < c.n * c.count(); ++i)
      if (i % c.n && random.uniform() < masked) logits[i] = -infinity;
    const std::vector<T> x = encoded<T>(logits);
    const std::vector<C> noise = c.noise(math_of(set.internals, C()));
    const Outputs<T> out = run(c, x);
    for (int64_t row = 0; row < c.count(); ++row) {
      std::vector<C> z(c.n);
      for (int64_t i = 0; i < c.n; ++i) z[i] = C(Element<T>::decode(x[row * c.n + i])) + noise[row * c.n + i];
      const int64_t top = std::max_element(z.begin(), z.end()) - z.begin();
      CHECK(out.index[row] == top, "n = %lld, row %lld: index %lld, expected %lld", (long long)c.n, (long long)row,
            (long long)out.index[row], (long long)top);
      const std::vector<long double> p = expected(z, C(c.tau(row)));
      const double unit = ulp<T>(double(p[top]));
      for (int64_t i = 0; i < c.n; ++i) {
        const double got = Element<T>::decode(out.soft[row * c.n + i]), error = double(std::fabs(got - p[i])) / unit;
        worst = std::fmax(worst, error);
        CHECK(error <= max_ulps<T> && got >= 0,
              "%s %s n = %lld, row %lld, i = %lld: got %.17g, expected %.17Lg, %.2f ulp",
              Element<T>::name, entmax ? "entmax" : "softmax", (long long)c.n, (long long)row, (long long)i, got, p[i],
              error);
        const double chosen = Element<T>::decode(out.one_hot[row * c.n + i]);
        CHECK(chosen == (i == top), "row %lld, i = %lld: one_hot %g", (long long)row, (long long)i, chosen);
        if (z[i] == -infinity) CHECK(got == 0, "a masked element got %g", got);
      }
    }
    check_pieces(c, x, out);
  }

  // The same rows in several calls, and with a single output.
  void check_pieces(const GumbelCase& c, const std::vector<T>& x, const Outputs<T>& whole) const {
    Outputs<T> out{std::vector<T>(x.size()), std::vector<T>(x.size()), std::vector<int64_t>(c.count(), -1)};
    for (int64_t begin = 0, step = 1; begin < c.count(); begin += step, ++step)
      run(c, x, out.soft.data(), out.one_hot.data(), out.index.data(), begin, std::min(begin + step, c.count()));
    CHECK(same_bits(out.soft, whole.soft), "n = %lld: soft depends on the row ranges", (long long)c.n);
    CHECK(same_bits(out.one_hot, whole.one_hot), "n = %lld: one_hot depends on the row ranges", (long long)c.n);
    CHECK(same_bits(out.index, whole.index), "n = %lld: index depends on the row ranges", (long long)c.n);

    std::vector<T> soft(x.size());
    std::vector<int64_t> index(c.count(), -1);
    run(c, x, soft.data(), nullptr, nullptr, 0, c.count());
    run(c, x, nullptr, nullptr, index.data(), 0, c.count());
    CHECK(same_bits(soft, whole.soft) && same_bits(index, whole.index), "n = %lld: a single output differs",
          (long long)c.n);
  }

  // Rows with NaN, rows of only −inf, rows of equal logits, and invalid temperatures.
  void check_special_rows() const {
    for (const int64_t n : {1, 7, 16, 33}) {
      const GumbelCase c{n, 2, 3, {5}, {1.0}};
      std::vector<double> logits(c.n * c.count(), 0.5);
      logits[1 * n + n / 2] = std::nan("");
      for (int64_t i = 0; i < n; ++i) logits[3 * n + i] = -infinity;
      const Outputs<T> out = run(c, encoded<T>(logits));
      const std::vector<double> soft = decoded(out.soft), one_hot = decoded(out.one_hot);
      CHECK(out.index[1] == n / 2, "NaN at %lld: index %lld", (long long)n / 2, (long long)out.index[1]);
      CHECK(out.index[3] == 0, "all -inf: index %lld", (long long)out.index[3]);
      for (int64_t i = 0; i < n; ++i) {
        CHECK(std::isnan(soft[n + i]) && std::isnan(one_hot[n + i]), "NaN row: %g, %g", soft[n + i], one_hot[n + i]);
        const double s = soft[3 * n + i], h = one_hot[3 * n + i];
        CHECK(entmax ? s == 0 && h == 0 : std::isnan(s) && std::isnan(h), "all -inf: %g, %g", s, h);
        for (const int64_t row : {0, 2, 4, 5})
          CHECK(std::isfinite(soft[row * n + i]) && std::isfinite(one_hot[row * n + i]), "a valid row became invalid");
      }
      for (const double tau : {0.0, -1.0, std::nan("")}) {
        const Outputs<T> bad = run({n, 1, 2, {5}, {1.0, tau}}, encoded<T>(std::vector<double>(2 * n, 0.5)));
        for (int64_t i = 0; i < n; ++i)
          CHECK(!std::isnan(Element<T>::decode(bad.soft[i])) && std::isnan(Element<T>::decode(bad.soft[n + i])),
                "tau %g: got %g", tau, Element<T>::decode(bad.soft[n + i]));
      }
    }
  }
};

template <class T>
static void test_type(const InstructionSet& set) {
  for (const bool entmax : {false, true}) {
    Sampler<T> sampler{set, entmax};
    for (const GumbelCase& c : gumbel_cases())
      for (const double masked : {0.0, 0.3}) sampler.check(c, masked);
    sampler.check_special_rows();
    std::printf("%-8s %s error at most %.3f ulp of the row's largest value\n", Element<T>::name,
                entmax ? "entmax " : "softmax", sampler.worst);
  }
}

static void test(const InstructionSet& set) {
  test_type<double>(set);
  test_type<float>(set);
  test_type<bfloat16>(set);
  test_type<float16>(set);
}

int main() { return run(test); }
