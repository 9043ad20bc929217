// The scans over time against plain loops in long double, their gradients as transposed maps; pieces give the same
// bits. Buffers have exactly their size, flags included.
#include <algorithm>

#include "numbers.h"
#include "run.h"

using namespace automl_ext;

// Errors add up along T = 29 steps; everything is of order 1 to 10.
template <class T>
static constexpr double tolerance = (sizeof(T) == 2 ? 2 : 64) * Element<T>::epsilon;

template <class T>
struct Episodes {
  int64_t steps, columns;
  std::vector<uint8_t> terminated, truncated, valid;
  std::vector<T> log_rhos, rewards, values, next_values;

  Episodes(int64_t steps, int64_t columns, Random& random) : steps(steps), columns(columns) {
    for (std::vector<T>* x : {&log_rhos, &rewards, &values, &next_values})
      *x = encoded<T>(random.normals(steps * columns, 0.5));
    for (int64_t i = 0; i < steps * columns; ++i) {
      terminated.push_back(random.uniform() < 0.1);
      truncated.push_back(random.uniform() < 0.1);
      valid.push_back(random.uniform() < 0.9);
      if (!valid[i]) rewards[i] = next_values[i] = log_rhos[i] = Element<T>::encode(std::nan(""));  // never read
      if (terminated[i]) next_values[i] = Element<T>::encode(std::nan(""));
    }
  }
  Trajectory trajectory() const {
    Trajectory x{};
    x.steps = steps, x.columns = columns;
    x.terminated = terminated.data(), x.truncated = truncated.data(), x.valid = valid.data();
    x.log_rhos = log_rhos.data(), x.rewards = rewards.data(), x.values = values.data();
    x.next_values = next_values.data();
    x.gamma = 0.9, x.lam = 0.8, x.rho_clip = 1.1, x.c_clip = 0.9, x.n = 3;
    return x;
  }
  bool cut(int64_t i) const {
    const bool last = i + columns >= steps * columns;
    return terminated[i] || truncated[i] || last || !valid[i] || !valid[i + columns];
  }
};

template <class T>
struct Scans {
  using Columns = ReturnsKernels::Columns;
  using Values = std::vector<long double>;
  const ReturnsKernels& kernels;
  const Episodes<T>& e;
  const int64_t size = e.steps * e.columns;

  double of(const std::vector<T>& x, int64_t i) const { return Element<T>::decode(x[i]); }
  double bootstrap(int64_t i) const { return e.terminated[i] ? 0 : 0.9 * of(e.next_values, i); }

  // `count` outputs, in one go and in pieces of columns.
  std::vector<std::vector<T>> run(Columns kernel, Trajectory x, int count, std::vector<int64_t>* last = nullptr) const {
    std::vector<std::vector<T>> out(count, std::vector<T>(size)), pieces = out;
    std::vector<int64_t> out_last(size), last_pieces(size);
    for (int k = 0; k < count; ++k) x.out[k] = out[k].data();
    x.last = out_last.data();
    kernel(x, 0, e.columns);
    for (int k = 0; k < count; ++k) x.out[k] = pieces[k].data();
    x.last = last_pieces.data();
    for (int64_t begin = 0, step = 1; begin < e.columns; begin += step, step += 2)
      kernel(x, begin, std::min(begin + step, e.columns));
    for (int k = 0; k < count; ++k) CHECK(same_bits(out[k], pieces[k]), "output %d differs in pieces", k);
    CHECK(same_bits(out_last, last_pieces), "last differs in pieces");
    if (last) *last = out_last;
    return out;
  }
  void compare(const char* what, const std::vector<T>& got, const Values& expected) const {
    for (int64_t i = 0; i < size; ++i) {
      const double y = of(got, i), bound = tolerance<T> * std::fmax(1, std::fabs(double(expected[i])));
      CHECK(std::fabs(y - expected[i]) <= bound, "%s %s, t = %lld, column %lld of %lld: got %.9g, expected %.9Lg",
            Element<T>::name, what, (long long)(i / e.columns), (long long)(i % e.columns), (long long)e.columns, y,
            expected[i]);
    }
  }

  void check_gae() const {
    Values a(size), returns(size);
    for (int64_t i = size; i-- > 0;) {
      if (e.valid[i])
        a[i] = of(e.rewards, i) + bootstrap(i) - of(e.values, i) + (e.cut(i) ? 0 : 0.9L * 0.8L * a[i + e.columns]);
      returns[i] = a[i] + of(e.values, i);
    }
    const auto out = run(kernels.gae[Element<T>::dtype], e.trajectory(), 2);
    compare("advantages", out[0], a), compare("gae's returns", out[1], returns);
  }
  void check_lambda() const {
    Values g(size);
    for (int64_t i = size; i-- > 0;) {
      if (!e.valid[i]) continue;
      g[i] = of(e.rewards, i) + (e.cut(i) ? bootstrap(i) : 0.2L * bootstrap(i) + 0.9L * 0.8L * g[i + e.columns]);
    }
    compare("lambda-returns", run(kernels.lambda_returns[Element<T>::dtype], e.trajectory(), 1)[0], g);
  }
  void check_n_step() const {
    Values returns(size), discounts(size);
    std::vector<int64_t> last(size), expected_last(size);
    for (int64_t i = 0; i < size; ++i) {
      expected_last[i] = i / e.columns;
      if (!e.valid[i]) continue;
      int64_t j = i;
      long double power = 1;
      for (int k = 1;; ++k, j += e.columns) {
        returns[i] += power * of(e.rewards, j);
        if (k == 3 || e.cut(j)) break;
        power *= 0.9L;
      }
      returns[i] += power * bootstrap(j);
      discounts[i] = e.terminated[j] ? 0 : 0.9L * power;
      expected_last[i] = j / e.columns;
    }
    const auto out = run(kernels.n_step[Element<T>::dtype], e.trajectory(), 2, &last);
    compare("n-step returns", out[0], returns), compare("n-step discounts", out[1], discounts);
    CHECK(last == expected_last, "%s last step of some window is wrong", Element<T>::name);
  }
  void check_vtrace() const {
    Values vs(size), advantages(size);
    for (int64_t i = size; i-- > 0;) {
      vs[i] = of(e.values, i);
      if (!e.valid[i]) continue;
      const long double ratio = std::exp((long double)of(e.log_rhos, i)), rho = std::min(ratio, 1.1L);
      const int64_t next = i + e.columns;
      vs[i] += rho * (of(e.rewards, i) + bootstrap(i) - of(e.values, i));
      if (!e.cut(i)) vs[i] += 0.9L * 0.8L * std::min(ratio, 0.9L) * (vs[next] - of(e.values, next));
      advantages[i] = rho * (of(e.rewards, i) + (e.cut(i) ? bootstrap(i) : 0.9L * vs[next]) - of(e.values, i));
    }
    const auto out = run(kernels.vtrace[Element<T>::dtype], e.trajectory(), 2);
    compare("vs", out[0], vs), compare("V-trace's advantages", out[1], advantages);
  }
  void check_retrace() const {
    Values q(size);
    for (int64_t i = size; i-- > 0;) {
      q[i] = of(e.values, i);
      if (!e.valid[i]) continue;
      const int64_t next = i + e.columns;
      q[i] = of(e.rewards, i) + bootstrap(i);
      if (!e.cut(i))
        q[i] += 0.9L * 0.8L * std::min(1.0L, std::exp((long double)of(e.log_rhos, next))) *
                (q[next] - of(e.values, next));
    }
    compare("retrace", run(kernels.retrace[Element<T>::dtype], e.trajectory(), 1)[0], q);
  }

  // What backward computes is the transposed map: ⟨grad, f(x)⟩ = ⟨backward(grad), x⟩, f being linear.
  void check_transposed(const char* what, Columns forward, Columns backward, int inputs, Random& random) const {
    const std::vector<T> grad = encoded<T>(random.normals(size));
    Trajectory x = e.trajectory();
    const std::vector<T> out = run(forward, x, 2)[0];
    x.grad = grad.data();
    const auto gradients = run(backward, x, inputs);
    const std::vector<T>* of_input[] = {&e.rewards, inputs == 3 ? &e.values : &e.next_values, &e.next_values};
    long double forward_dot = 0, backward_dot = 0;
    for (int64_t i = 0; i < size; ++i) {
      if (!e.valid[i]) {
        for (int k = 0; k < inputs; ++k) CHECK(of(gradients[k], i) == 0, "%s: gradient at an invalid step", what);
        continue;
      }
      forward_dot += (long double)of(grad, i) * of(out, i);
      for (int k = 0; k < inputs; ++k) {
        const double input = of(*of_input[k], i), g = of(gradients[k], i);
        if (input == input) backward_dot += (long double)g * input;  // a terminated step's V′ is no number here
        if (input != input) CHECK(g == 0, "%s: gradient to a terminated step's V'", what);
      }
    }
    CHECK(std::fabs(forward_dot - backward_dot) <= std::sqrt(double(size)) * tolerance<T>,
          "%s %s, %lld columns: %.17Lg forward, %.17Lg backward", Element<T>::name, what, (long long)e.columns,
          forward_dot, backward_dot);
  }
};

// Dense matrix of the projection: each atom's mass on its two neighbours.
template <class T>
static void check_projection(const ReturnsKernels& kernels, int64_t atoms, Random& random) {
  const int64_t rows = 21;
  std::vector<double> p = random.normals(rows * atoms);
  for (double& x : p) x = std::fabs(x) / double(atoms);
  const std::vector<T> probs = encoded<T>(p), rewards = encoded<T>(random.normals(rows, 3));
  std::vector<uint8_t> terminated(rows);
  for (int64_t row = 0; row < rows; row += 4) terminated[row] = 1;
  std::vector<T> out(rows * atoms), pieces = out;
  std::vector<double> scratch(atoms);
  Projection x{rows, atoms, probs.data(), rewards.data(), nullptr, terminated.data(), out.data(), 0.9, -5, 5};
  kernels.projection[Element<T>::dtype](x, 0, rows, scratch.data());
  x.out = pieces.data();
  for (int64_t row = 0; row < rows; row += 5)
    kernels.projection[Element<T>::dtype](x, row, std::min(row + 5, rows), scratch.data());
  CHECK(same_bits(out, pieces), "projection differs in pieces");
  for (int64_t row = 0; row < rows; ++row) {
    const double step = 10 / double(atoms - 1), reward = Element<T>::decode(rewards[row]);
    for (int64_t i = 0; i < atoms; ++i) {
      double expected = 0;
      for (int64_t j = 0; j < atoms; ++j) {
        const double target = reward + (terminated[row] ? 0 : 0.9) * (-5 + double(j) * step);
        const double distance = std::fabs(std::fmin(5, std::fmax(-5, target)) - (-5 + double(i) * step)) / step;
        expected += std::fmax(0, 1 - distance) * Element<T>::decode(probs[row * atoms + j]);
      }
      const double got = Element<T>::decode(out[row * atoms + i]);
      const double bound = 1e-13 + 0.51 * ulp<T>(expected);
      CHECK(std::fabs(got - expected) <= bound, "%s projection, %lld atoms, row %lld, atom %lld: got %.17g, expected %.17g",
            Element<T>::name, (long long)atoms, (long long)row, (long long)i, got, expected);
    }
  }
}

template <class T>
static void test_type(const InstructionSet& set) {
  Random random{13};
  const ReturnsKernels& kernels = set.kernels.returns;
  const DType d = Element<T>::dtype;
  for (const int64_t columns : {1, 2, 7, 16, 17, 33, 100, 1030})
    for (const int64_t steps : {1, 2, 29}) {
      const Episodes<T> episodes(steps, columns, random);
      const Scans<T> scans{kernels, episodes};
      scans.check_gae(), scans.check_lambda(), scans.check_n_step(), scans.check_vtrace(), scans.check_retrace();
      scans.check_transposed("gae", kernels.gae[d], kernels.gae_backward[d], 3, random);
      scans.check_transposed("lambda", kernels.lambda_returns[d], kernels.lambda_returns_backward[d], 2, random);
      scans.check_transposed("n-step", kernels.n_step[d], kernels.n_step_backward[d], 2, random);
    }
  for (const int64_t atoms : {2, 3, 21, 51}) check_projection<T>(kernels, atoms, random);
}

static void test(const InstructionSet& set) {
  test_type<double>(set);
  test_type<float>(set);
  test_type<bfloat16>(set);
  test_type<float16>(set);
}

int main() { return run(test); }
