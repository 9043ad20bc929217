// Checks the returns kernels on random episodes against loops in long double. Gradients are checked as transposed maps.
// A Runner runs the kernels of a device: runner.kernels has the members of ReturnsKernels; runner.run<T>(member, x,
// count, last) returns the first `count` outputs and fills `last` if it is not null.
#pragma once
#include <algorithm>

#include "../../csrc/returns/returns.h"
#include "check.h"
#include "numbers.h"

namespace automl_ext {

template <class T>
struct Episodes {
  int64_t steps, columns;
  double gamma = 0.9, lam = 0.8;
  int64_t n = 3;
  bool has_flags, carries;
  std::vector<uint8_t> terminated, truncated, valid;
  std::vector<T> log_rhos, rewards, values, next_values, discounts;

  // rate: probability of each flag; 0: the flag arrays are null. carries: half of the steps are invalid, and carry.
  Episodes(int64_t steps, int64_t columns, Random& random, double rate = 0.1, bool carries = false)
      : steps(steps), columns(columns), has_flags(rate > 0), carries(carries) {
    const int64_t size = steps * columns;
    for (std::vector<T>* x : {&log_rhos, &rewards, &values, &next_values, &discounts})
      *x = encoded<T>(random.normals(size, 0.5));
    for (int64_t i = 0; i < size; ++i) {
      terminated.push_back(random.uniform() < rate);
      truncated.push_back(random.uniform() < rate);
      valid.push_back(random.uniform() >= (carries ? 0.5 : rate));
    }
    for (int64_t i = 0; i < size; ++i) {  // what must not be read
      const T nan = Element<T>::encode(std::nan(""));
      if (!valid[i]) rewards[i] = log_rhos[i] = discounts[i] = nan;
      if (terminated[i] || (carries ? transition(i).last != i : !valid[i])) next_values[i] = nan;
    }
  }
  Trajectory trajectory() const {
    Trajectory x{};
    x.steps = steps, x.columns = columns;
    if (has_flags) x.terminated = terminated.data(), x.truncated = truncated.data(), x.valid = valid.data();
    x.log_rhos = log_rhos.data(), x.rewards = rewards.data(), x.values = values.data();
    x.next_values = next_values.data();
    x.gamma = gamma, x.lam = lam, x.rho_clip = 1.1, x.c_clip = 0.9, x.n = n, x.carries = carries;
    return x;
  }
  // What follows step i: with V' of step `last`, which is i itself unless invalid steps carry, step `next`, or nothing (-1).
  struct Transition {
    int64_t last, next;
  };
  Transition transition(int64_t i) const {
    if (!carries) return {i, cut(i) ? -1 : i + columns};
    for (;; i += columns) {
      if (terminated[i] || truncated[i] || i + columns >= steps * columns) return {i, -1};
      if (valid[i + columns]) return {i, i + columns};
    }
  }
  bool cut(int64_t i) const {
    const bool last = i + columns >= steps * columns;
    return terminated[i] || truncated[i] || last || !valid[i] || !valid[i + columns];
  }
};

template <class T, class Runner>
struct Scans {
  using Values = std::vector<long double>;
  const Runner& runner;
  const Episodes<T>& e;
  const int64_t size = e.steps * e.columns;
  // Errors accumulate over about 1/(1 - gamma lambda) steps; values are of order 1 to 10.
  const double tolerance = (sizeof(T) == 2 ? 2 : 18 / (1 - e.gamma * e.lam)) * Element<T>::epsilon;
  const long double gamma = e.gamma, lam = e.lam;

  double of(const std::vector<T>& x, int64_t i) const { return Element<T>::decode(x[i]); }
  long double bootstrap(int64_t i) const { return e.terminated[i] ? 0 : gamma * of(e.next_values, i); }

  template <class Kernel>
  std::vector<std::vector<T>> run(const Kernel& kernel, const Trajectory& x, int count,
                                  std::vector<int64_t>* last = nullptr) const {
    return runner.template run<T>(kernel, x, count, last);
  }
  void compare(const char* what, const std::vector<T>& got, const Values& expected) const {
    for (int64_t i = 0; i < size; ++i) {
      const double y = of(got, i), bound = tolerance * std::fmax(1, std::fabs(double(expected[i])));
      CHECK(std::fabs(y - expected[i]) <= bound,
            "%s %s, t = %lld of %lld, column %lld of %lld: got %.9g, expected %.9Lg", Element<T>::name, what,
            (long long)(i / e.columns), (long long)e.steps, (long long)(i % e.columns), (long long)e.columns, y,
            expected[i]);
    }
  }

  void check_gae() const {
    Values a(size), returns(size);
    for (int64_t i = size; i-- > 0;) {
      if (const auto [last, next] = e.transition(i); e.valid[i])
        a[i] = of(e.rewards, i) + bootstrap(last) - of(e.values, i) + (next < 0 ? 0 : gamma * lam * a[next]);
      returns[i] = a[i] + of(e.values, i);
    }
    const auto out = run(runner.kernels.gae, e.trajectory(), 2);
    compare("advantages", out[0], a), compare("gae: returns", out[1], returns);
  }
  void check_lambda() const {
    Values g(size);
    for (int64_t i = size; i-- > 0;) {
      if (!e.valid[i]) continue;
      const auto [last, next] = e.transition(i);
      g[i] = of(e.rewards, i) + (next < 0 ? bootstrap(last) : (1 - lam) * bootstrap(last) + gamma * lam * g[next]);
    }
    compare("lambda-returns", run(runner.kernels.lambda_returns, e.trajectory(), 1)[0], g);
  }
  // Lambda-returns with explicit discounts, and all gradients, except that of the discounts if invalid steps carry. A
  // terminated step is then only a cut: its V' is used.
  void check_lambda_discounts(Random& random) const {
    const std::vector<T> grad = encoded<T>(random.normals(size));
    Trajectory x = e.trajectory();
    x.next_values = x.values, x.discounts = e.discounts.data();
    Values g(size), ahead(size), a(size), grad_next(size), grad_discounts(size);
    for (int64_t i = size; i-- > 0;) {
      if (!e.valid[i]) continue;
      const auto [last, next] = e.transition(i);
      ahead[i] = next < 0 ? of(e.values, last) : (1 - lam) * of(e.values, last) + lam * g[next];
      g[i] = of(e.rewards, i) + of(e.discounts, i) * ahead[i];
    }
    const std::vector<T> returns = run(runner.kernels.lambda_returns, x, 1)[0];
    compare("lambda-returns with discounts", returns, g);
    for (int64_t i = 0; i < size; ++i) {
      if (!e.valid[i]) continue;
      const auto [last, next] = e.transition(i);
      a[i] += of(grad, i);
      if (next >= 0) a[next] += lam * of(e.discounts, i) * a[i];
      grad_next[last] = (next < 0 ? 1 : 1 - lam) * of(e.discounts, i) * a[i];
      // Computed from the stored returns.
      grad_discounts[i] = a[i] * of(e.values, last);
      if (next >= 0) grad_discounts[i] = a[i] * ((1 - lam) * of(e.values, last) + lam * of(returns, next));
    }
    x.grad = grad.data();
    if (!e.carries) x.returns = returns.data();
    const auto out = run(runner.kernels.lambda_returns_backward, x, e.carries ? 2 : 3);
    compare("lambda: gradient of rewards", out[0], a), compare("lambda: gradient of V'", out[1], grad_next);
    if (!e.carries) compare("lambda: gradient of discounts", out[2], grad_discounts);
  }
  void check_n_step() const {
    Values returns(size), discounts(size);
    std::vector<int64_t> last(size), expected_last(size);
    for (int64_t i = 0; i < size; ++i) {
      expected_last[i] = i / e.columns;
      if (!e.valid[i]) continue;
      int64_t j = i;
      long double power = 1;
      for (int64_t k = 1, step = i;; ++k) {
        returns[i] += power * of(e.rewards, step);
        const auto [last, next] = e.transition(step);
        j = last, step = next;
        if (k == e.n || next < 0) break;
        power *= gamma;
      }
      returns[i] += power * bootstrap(j);
      discounts[i] = e.terminated[j] ? 0 : gamma * power;
      expected_last[i] = j / e.columns;
    }
    const auto out = run(runner.kernels.n_step, e.trajectory(), 2, &last);
    compare("n-step returns", out[0], returns), compare("n-step discounts", out[1], discounts);
    CHECK(last == expected_last, "%s: wrong last step of a window", Element<T>::name);
  }
  void check_vtrace() const {
    Values vs(size), advantages(size);
    for (int64_t i = size; i-- > 0;) {
      vs[i] = of(e.values, i);
      if (!e.valid[i]) continue;
      const long double ratio = std::exp((long double)of(e.log_rhos, i)), rho = std::min(ratio, 1.1L);
      const int64_t next = i + e.columns;
      vs[i] += rho * (of(e.rewards, i) + bootstrap(i) - of(e.values, i));
      if (!e.cut(i)) vs[i] += gamma * lam * std::min(ratio, 0.9L) * (vs[next] - of(e.values, next));
      advantages[i] = rho * (of(e.rewards, i) + (e.cut(i) ? bootstrap(i) : gamma * vs[next]) - of(e.values, i));
    }
    const auto out = run(runner.kernels.vtrace, e.trajectory(), 2);
    compare("vs", out[0], vs), compare("vtrace: advantages", out[1], advantages);
  }
  void check_retrace() const {
    Values q(size);
    for (int64_t i = size; i-- > 0;) {
      q[i] = of(e.values, i);
      if (!e.valid[i]) continue;
      const int64_t next = i + e.columns;
      q[i] = of(e.rewards, i) + bootstrap(i);
      if (!e.cut(i))
        q[i] +=
            gamma * lam * std::min(1.0L, std::exp((long double)of(e.log_rhos, next))) * (q[next] - of(e.values, next));
    }
    compare("retrace", run(runner.kernels.retrace, e.trajectory(), 1)[0], q);
  }

  // The backward pass must be the transpose of the linear forward map f: ⟨grad, f(x)⟩ = ⟨backward(grad), x⟩. The first
  // `outputs` outputs have a gradient.
  template <class Kernel>
  void check_transposed(const char* what, const Kernel& forward, const Kernel& backward, int outputs, int inputs,
                        Random& random) const {
    const std::vector<T> grads[] = {encoded<T>(random.normals(size)), encoded<T>(random.normals(size))};
    Trajectory x = e.trajectory();
    const auto out = run(forward, x, 2);
    x.grad = grads[0].data();
    if (outputs == 2) x.grad_returns = grads[1].data();
    const auto gradients = run(backward, x, inputs);
    const std::vector<T>* input_arrays[] = {&e.rewards, inputs == 3 ? &e.values : &e.next_values, &e.next_values};
    long double forward_dot = 0, backward_dot = 0;
    for (int64_t i = 0; i < size; ++i) {
      if (!e.valid[i])
        for (int k = 0; k < inputs - e.carries; ++k)  // the last one is that of V'
          CHECK(of(gradients[k], i) == 0, "%s: nonzero gradient at an invalid step", what);
      for (int k = 0; k < outputs && e.valid[i]; ++k) forward_dot += (long double)of(grads[k], i) * of(out[k], i);
      for (int k = e.valid[i] ? 0 : inputs - e.carries; k < inputs; ++k) {
        const double input = of(*input_arrays[k], i), g = of(gradients[k], i);
        if (input == input) backward_dot += (long double)g * input;  // V' of a terminated step is NaN here
        if (input != input) CHECK(g == 0, "%s: nonzero gradient of a V' that is not used", what);
      }
    }
    CHECK(std::fabs(forward_dot - backward_dot) <= outputs * std::sqrt(double(size)) * tolerance,
          "%s %s, %lld x %lld: %.17Lg forward, %.17Lg backward", Element<T>::name, what, (long long)e.steps,
          (long long)e.columns, forward_dot, backward_dot);
  }

  void check_all(Random& random) const {
    const auto& k = runner.kernels;
    check_gae(), check_lambda(), check_lambda_discounts(random), check_n_step();
    if (!e.carries) check_vtrace(), check_retrace();
    for (const int outputs : {1, 2}) check_transposed("gae", k.gae, k.gae_backward, outputs, 3, random);
    check_transposed("lambda", k.lambda_returns, k.lambda_returns_backward, 1, 2, random);
    check_transposed("n-step", k.n_step, k.n_step_backward, 1, 2, random);
  }
};

}  // namespace automl_ext
