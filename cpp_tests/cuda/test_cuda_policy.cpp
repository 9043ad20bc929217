// The CUDA kernels of categorical_log_probs and policy_gradient_loss, run on the CPU, against their formulas in long double.
#include "../cuda_on_cpu/cuda_on_cpu.h"

#include "../../csrc/policy/policy_cuda.cu"
#include "../references/check.h"
#include "../references/numbers.h"
#include "cuda_types.h"

using namespace automl_ext;

static const double inf = std::numeric_limits<double>::infinity();

// A copy that begins `offset` elements after a multiple of 16 bytes.
template <class T>
struct Shifted {
  std::vector<T> all;
  int64_t offset;
  Shifted(const std::vector<T>& x, int64_t offset_) : all(size_t(offset_)), offset(offset_) {
    all.insert(all.end(), x.begin(), x.end());
  }
  T* data() { return all.data() + offset; }
  std::vector<T> values() const { return {all.begin() + offset, all.end()}; }
};

template <class T>
struct Categorical {
  using C = typename Element<T>::Compute;
  int64_t rows, n;
  std::vector<T> logits;
  std::vector<int64_t> actions;
  std::vector<T> of_log_probs, of_entropy;

  struct Results {
    std::vector<T> log_probs, entropy, grad;
    bool operator==(const Results& other) const {
      return same_bits(log_probs, other.log_probs) && same_bits(entropy, other.entropy) && same_bits(grad, other.grad);
    }
  };
  Results run(unsigned order, int64_t offset, int64_t grad_offset, bool has_log_prob, bool has_entropy) {
    cuda_on_cpu::seed = order;
    Shifted<T> x(logits, offset), grad(std::vector<T>(logits.size()), grad_offset);
    Results r{std::vector<T>(rows), std::vector<T>(rows), {}};
    std::vector<C> statistics(3 * rows);
    launch_categorical(Element<T>::dtype,
                       {rows, n, x.data(), actions.data(), r.log_probs.data(), r.entropy.data(), statistics.data()},
                       nullptr);
    launch_categorical_backward(Element<T>::dtype,
                                {rows, n, x.data(), actions.data(), has_log_prob ? of_log_probs.data() : nullptr,
                                 has_entropy ? of_entropy.data() : nullptr, statistics.data(), grad.data()},
                                nullptr);
    r.grad = grad.values();
    std::vector<T> log_probs(rows), entropy(rows);
    launch_categorical(Element<T>::dtype,
                       {rows, n, x.data(), actions.data(), log_probs.data(), entropy.data(), nullptr}, nullptr);
    CHECK(same_bits(log_probs, r.log_probs) && same_bits(entropy, r.entropy), "without statistics");
    return r;
  }

  // Errors in units of the last place of the largest terms; the half types only round the result.
  void check(const Results& r, bool has_log_prob, bool has_entropy) const {
    const double most = sizeof(T) == 2 ? 0.51 : 6;
    for (int64_t row = 0; row < rows; ++row) {
      std::vector<long double> v(n), p(n);
      long double top = -inf, total = 0, entropy = 0;
      bool invalid = false;
      for (int64_t i = 0; i < n; ++i) {
        v[i] = Element<T>::decode(logits[row * n + i]);
        invalid |= std::isnan(double(v[i])) || v[i] == inf;
        top = std::max(top, v[i]);
      }
      invalid |= top == -inf;
      for (int64_t i = 0; i < n; ++i) total += p[i] = std::exp(v[i] - top);
      const auto log_p = [&](int64_t i) { return v[i] - top - std::log(total); };
      for (int64_t i = 0; i < n; ++i) {
        p[i] /= total;
        if (p[i] > 0) entropy -= p[i] * log_p(i);
      }
      const int64_t action = actions[row];
      const bool exists = action >= 0 && action < n;
      const auto near = [&](const char* what, int64_t i, T got_, long double expected, double unit) {
        const double got = Element<T>::decode(got_), error = double(std::fabs(got - expected)) / unit;
        const bool ok = std::isnan(double(expected)) ? std::isnan(got) : got == expected || error <= most;
        CHECK(ok, "%s n = %lld, row %lld: %s[%lld] %.9g, expected %.9Lg (%.2f)", Element<T>::name, (long long)n,
              (long long)row, what, (long long)i, got, expected, error);
      };
      const long double of_l = has_log_prob ? Element<T>::decode(of_log_probs[row]) : 0;
      const long double of_e = has_entropy ? Element<T>::decode(of_entropy[row]) : 0;
      const double epsilon = std::ldexp(1.0, sizeof(C) == 8 ? -52 : -23);
      const double scale = double(std::fabs(invalid ? 1 : std::log(total) + (exists ? std::fabs(v[action] - top) : 0)));
      const auto unit = [&](long double x, double more) {  // of a result x, computed from numbers of that magnitude
        const double size = invalid ? 1 : std::fabs(double(x));
        return std::isfinite(size) ? ulp<T>(size) + more * epsilon : 1;
      };
      const long double chosen = invalid || !exists ? NAN : log_p(action);
      near("log_prob", 0, r.log_probs[row], chosen, unit(chosen, std::isfinite(scale) ? scale + 1 : 0));
      near("entropy", 0, r.entropy[row], invalid ? NAN : entropy, unit(entropy, scale + 1));
      double largest = 0;
      for (int64_t i = 0; i < n && !invalid; ++i) largest = std::max(largest, double(p[i]));
      for (int64_t i = 0; i < n; ++i) {
        long double g = NAN;
        if (!invalid) {
          g = (i == action ? of_l : 0) - p[i] * of_l;
          if (p[i] > 0) g -= p[i] * (log_p(i) + entropy) * of_e;
        }
        // p has the rounding error of log p.
        const long double distance = invalid || p[i] == 0 ? 0 : std::fabs(log_p(i));
        const double terms = double(p[i] * (1 + distance) * (std::fabs(of_l) + std::fabs(of_e) * (distance + entropy)));
        near("grad", i, r.grad[row * n + i], g, invalid ? 1 : unit(g, terms) + 1e-38);
      }
    }
  }
};

// Rows of all kinds: normal at increasing scales, masked, with one category, all masked, with NaN, with +inf; and actions
// that do not exist.
template <class T>
static Categorical<T> rows_of(int64_t n, int64_t count, Random& random) {
  std::vector<double> x;
  Categorical<T> c{count, n, {}, {}, encoded<T>(random.normals(count)), encoded<T>(random.normals(count))};
  for (int64_t row = 0; row < count; ++row) {
    std::vector<double> v = random.normals(n, std::pow(5, row % 4 - 1));
    const int kind = int(row % 8);
    for (int64_t i = 0; i < n; ++i) {
      if (kind == 1) v[i] += 200.0 * i / n;  // maxima that rise
      if (kind == 2 && i % 3) v[i] = -inf;
      if (kind == 3 && i != n / 2) v[i] = -inf;
      if (kind == 4) v[i] = -inf;
      if (kind == 7) v[i] = 3 - double(i) / n;
    }
    if (kind == 5) v[n - 1] = std::nan("");
    if (kind == 6) v[n / 3] = inf;
    x.insert(x.end(), v.begin(), v.end());
    c.actions.push_back(row == 9 ? -1 : row == 10 ? n : row % 3 == 0 ? n - 1 : row % 3 == 1 ? 0 : n / 2);
  }
  c.logits = encoded<T>(x);
  return c;
}

template <class T>
static void test_categorical() {
  Random random{3};
  for (const int64_t n : {1, 2, 4, 5, 8, 18, 33, 100, 129, 256, 300, 512, 513, 700, 1031, 4099, 20000}) {
    const int64_t count = n > 4000 ? 4 : n > 512 ? 8 : 11;
    Categorical<T> c = rows_of<T>(n, count, random);
    const auto first = c.run(1, 0, 0, true, true);
    c.check(first, true, true);
    for (unsigned order = 2; order <= cuda_on_cpu::orders(n > 4000 ? 2 : 3); ++order)
      CHECK(c.run(order, 0, 0, true, true) == first, "n = %lld: the result depends on the order", (long long)n);
    c.check(c.run(1, 1, 1, true, false), true, false);
    c.check(c.run(1, 3, 0, false, true), false, true);
  }
}

// Block sizes that the launches do not choose, and fewer blocks than rows.
template <class T>
static void test_blocks() {
  Random random{4};
  for (const int64_t n : {40, 515, 7000})
    for (const int threads : {32, 96, 192}) {
      Categorical<T> c = rows_of<T>(n, 8, random);
      typename Categorical<T>::Results r{std::vector<T>(8), std::vector<T>(8), std::vector<T>(8 * n)};
      std::vector<Compute<T>> statistics(24);
      KERNEL_LAUNCH(categorical_long_rows<T>, 3, threads, 0, nullptr,
                    (CategoricalCall{8, n, c.logits.data(), c.actions.data(), r.log_probs.data(), r.entropy.data(),
                                     statistics.data()}));
      KERNEL_LAUNCH(categorical_backward_long_rows<T>, 3, threads, 0, nullptr,
                    (CategoricalBackward{8, n, c.logits.data(), c.actions.data(), c.of_log_probs.data(),
                                         c.of_entropy.data(), statistics.data(), r.grad.data()}));
      c.check(r, true, true);
    }
  Categorical<T> c = rows_of<T>(17, 60, random);
  typename Categorical<T>::Results r{std::vector<T>(60), std::vector<T>(60), std::vector<T>(60 * 17)};
  std::vector<Compute<T>> statistics(180);
  KERNEL_LAUNCH((categorical_short_rows<T, 8, 4>), 2, 64, 0, nullptr,
                (CategoricalCall{60, 17, c.logits.data(), c.actions.data(), r.log_probs.data(), r.entropy.data(),
                                 statistics.data()}));
  KERNEL_LAUNCH((categorical_backward_short_rows<T, 8, 4>), 2, 64, 0, nullptr,
                (CategoricalBackward{60, 17, c.logits.data(), c.actions.data(), c.of_log_probs.data(),
                                     c.of_entropy.data(), statistics.data(), r.grad.data()}));
  c.check(r, true, true);
}

template <class T>
struct LossCase {
  using C = typename Element<T>::Compute;
  int64_t n;
  bool ratio, clips_values, weighted;

  void check() const {
    Random random{5};
    const auto draw = [&](double scale) { return encoded<T>(random.normals(n, scale)); };
    const std::vector<T> log_probs = draw(0.5), entropy = draw(1), values = draw(1), advantages = draw(1),
                         returns = draw(1), old_log_probs = draw(0.5), old_values = draw(1), weights = draw(0.01);
    const double vf = 0.5, ent = 0.25, clip = 0.2, value_clip = 0.3;
    struct Results {
      std::vector<T> losses, of_log_probs, of_values;
    };
    const auto run = [&](unsigned order, bool trained) {
      cuda_on_cpu::seed = order;
      Results r{std::vector<T>(4), std::vector<T>(n), std::vector<T>(n)};
      std::vector<double> workspace(policy_loss_workspace(n));
      launch_policy_loss(Element<T>::dtype,
                         {log_probs.data(), entropy.data(), values.data(), advantages.data(), returns.data(),
                          ratio ? old_log_probs.data() : nullptr, clips_values ? old_values.data() : nullptr,
                          weighted ? weights.data() : nullptr, trained ? r.of_log_probs.data() : nullptr,
                          trained ? r.of_values.data() : nullptr, 1 / double(n), clip, value_clip, vf},
                         n, ent, workspace.data(), {&r.losses[0], &r.losses[1], &r.losses[2], &r.losses[3]}, nullptr);
      return r;
    };
    const Results got = run(1, true);
    for (unsigned order = 2; order <= cuda_on_cpu::orders(3); ++order) {
      const Results again = run(order, true);
      CHECK(same_bits(again.losses, got.losses) && same_bits(again.of_values, got.of_values),
            "n = %lld: the result depends on the order", (long long)n);
    }
    CHECK(same_bits(run(1, false).losses, got.losses), "n = %lld: the loss differs without gradients", (long long)n);
    const auto at = [](const std::vector<T>& x, int64_t i) { return (long double)Element<T>::decode(x[i]); };
    const double epsilon = std::ldexp(1.0, sizeof(C) == 8 ? -52 : -23), half = sizeof(T) == 2 ? 0.51 : 1;
    long double sums[3] = {}, sizes[3] = {};
    for (int64_t i = 0; i < n; ++i) {
      const long double w = weighted ? at(weights, i) : 1.0L / n, a = at(advantages, i);
      long double gain = a * at(log_probs, i), slope = a;
      if (ratio) {
        const long double r = std::exp(at(log_probs, i) - at(old_log_probs, i));
        const long double clipped = std::min(std::max(r, 1 - (long double)clip), 1 + (long double)clip) * a;
        gain = std::min(r * a, clipped), slope = clipped < r * a ? 0 : r * a;
      }
      const long double value = at(values, i), miss = at(returns, i) - value;
      long double error = miss * miss, of_value = miss;
      if (clips_values) {
        const long double change = value - at(old_values, i), most = value_clip;
        const long double near = std::min(std::max(change, -most), most);
        const long double other = at(returns, i) - (at(old_values, i) + near);
        if (other * other > error) error = other * other, of_value = near == change ? other : 0;
      }
      const long double terms[3] = {w * gain, w * error, w * at(entropy, i)};
      for (int k = 0; k < 3; ++k) sums[k] += terms[k], sizes[k] += std::fabs(terms[k]);
      const auto near = [&](const char* what, T x, long double expected) {
        const double unit = half * ulp<T>(double(expected)) + 8 * epsilon * std::fabs(double(w)) * 10;
        CHECK(std::fabs(Element<T>::decode(x) - double(expected)) <= unit, "%s n = %lld, %lld: %s %.9g, expected %.9Lg",
              Element<T>::name, (long long)n, (long long)i, what, Element<T>::decode(x), expected);
      };
      near("of_log_probs", got.of_log_probs[i], -(w * slope));
      near("of_values", got.of_values[i], -2 * vf * w * of_value);
    }
    const long double expected[4] = {vf * sums[1] - sums[0] - ent * sums[2], -sums[0], sums[1], sums[2]};
    for (int k = 0; k < 4; ++k) {
      const double unit = half * ulp<T>(double(expected[k])) + 8 * epsilon * double(sizes[0] + sizes[1] + sizes[2]);
      CHECK(std::fabs(Element<T>::decode(got.losses[k]) - double(expected[k])) <= unit,
            "%s n = %lld: result %d %.9g, expected %.9Lg", Element<T>::name, (long long)n, k,
            Element<T>::decode(got.losses[k]), expected[k]);
    }
  }
};

template <class T>
static void test_loss() {
  for (const int64_t n : {1, 100, 2048, 2049, 5000})
    for (const bool clips : {false, true})
      for (const bool weighted : {false, true}) LossCase<T>{n, clips, clips, weighted}.check();
  LossCase<T>{300, true, false, false}.check();
  LossCase<T>{300, false, true, true}.check();
  // No elements: all sums are 0.
  std::vector<T> losses = encoded<T>({7, 7, 7, 7});
  PolicyLoss none{};
  launch_policy_loss(Element<T>::dtype, none, 0, 0.1, nullptr, {&losses[0], &losses[1], &losses[2], &losses[3]},
                     nullptr);
  for (const T& loss : losses) CHECK(Element<T>::decode(loss) == 0, "%g", double(Element<T>::decode(loss)));
}

int main(int argc, char** argv) {
  const auto categorical = [] {
    for_compiled_types([](auto element) {
      test_categorical<decltype(element)>();
      test_blocks<decltype(element)>();
    });
  };
  const auto loss = [] { for_compiled_types([](auto element) { test_loss<decltype(element)>(); }); };
  return run_part(argc, argv, {{"categorical", categorical}, {"policy_loss", loss}});
}
