// Mixed-op aggregation against loops in long double: K from 1 to 70, odd lengths. Results are bitwise independent of
// the ranges of the calls.
#include <algorithm>
#include <cstdint>

#include "../instruction_sets/run.h"
#include "../references/numbers.h"

using namespace automl_ext;

template <class T>
struct Inputs {
  int64_t count, n;
  std::vector<std::vector<T>> x;
  std::vector<double> weights;
  std::vector<const void*> pointers;

  Inputs(int64_t count, int64_t n, Random& random) : count(count), n(n), x(count) {
    for (std::vector<T>& e : x) e = encoded<T>(random.normals(n)), pointers.push_back(e.data());
    weights = random.normals(count);
  }
  double value(int64_t k, int64_t i) const { return Element<T>::decode(x[k][i]); }
};

template <class T>
struct Test {
  using C = typename Element<T>::Compute;
  const MixedOpKernels& kernels;
  double worst = 0, worst_dot = 0;

  // Each of the K terms is rounded twice, the result once.
  void check_forward(const Inputs<T>& in) {
    std::vector<T> y = encoded<T>(std::vector<double>(in.n, 7)), pieces = y;
    const auto forward = kernels.forward[Element<T>::dtype];
    forward(in.pointers.data(), in.weights.data(), in.count, y.data(), 0, in.n);
    for (int64_t i = 0; i < in.n; ++i) {
      long double expected = 0, magnitudes = 0;
      for (int64_t k = 0; k < in.count; ++k) {
        const long double term = (long double)C(in.weights[k]) * in.value(k, i);
        expected += term, magnitudes += std::fabs(term);
      }
      const double got = Element<T>::decode(y[i]);
      const double bound = double(magnitudes) * Element<C>::epsilon * (1 + std::sqrt(double(in.count))) +
                           (sizeof(T) == 2 ? 0.501 * ulp<T>(double(expected)) : 0);
      const double error = double(std::fabs(got - expected));
      worst = std::fmax(worst, error / bound);
      CHECK(error <= bound, "%s K = %lld, n = %lld, i = %lld: got %.17g, expected %.17Lg", Element<T>::name,
            (long long)in.count, (long long)in.n, (long long)i, got, expected);
    }
    for (int64_t begin = 0, step = 1; begin < in.n; begin += step, step += 3)
      forward(in.pointers.data(), in.weights.data(), in.count, pieces.data(), begin, std::min(begin + step, in.n));
    CHECK(same_bits(y, pieces), "%s K = %lld, n = %lld: the result depends on the ranges", Element<T>::name,
          (long long)in.count, (long long)in.n);
  }

  void check_backward(const Inputs<T>& in, const std::vector<T>& grad, int64_t begin, int64_t end) {
    const auto backward = kernels.backward[Element<T>::dtype];
    std::vector<std::vector<T>> dx(in.count, encoded<T>(std::vector<double>(in.n, 7)));
    std::vector<void*> pointers;
    for (int64_t k = 0; k < in.count; ++k) pointers.push_back(k % 3 == 2 ? nullptr : dx[k].data());
    std::vector<double> dots(in.count);
    backward(grad.data(), in.pointers.data(), in.weights.data(), in.count, pointers.data(), dots.data(), begin, end,
             false);
    for (int64_t k = 0; k < in.count; ++k) {
      long double dot = 0, magnitudes = 0;
      for (int64_t i = 0; i < in.n; ++i) {
        const double g = Element<T>::decode(grad[i]), got = Element<T>::decode(dx[k][i]);
        const bool inside = i >= begin && i < end;
        if (inside) dot += (long double)g * in.value(k, i), magnitudes += std::fabs(g * in.value(k, i));
        const double expected =
            inside && pointers[k] ? Element<T>::decode(Element<T>::encode(C(in.weights[k]) * C(g))) : 7;
        CHECK(got == expected, "%s input %lld, i = %lld: got %.17g, expected %.17g", Element<T>::name, (long long)k,
              (long long)i, got, expected);
      }
      const double error = double(std::fabs(dots[k] - dot)), unit = double(magnitudes) * Element<C>::epsilon;
      if (unit > 0) worst_dot = std::fmax(worst_dot, error / unit);
      CHECK(error <= 2 * unit, "%s K = %lld, elements %lld to %lld: dot %.17g, expected %.17Lg", Element<T>::name,
            (long long)in.count, (long long)begin, (long long)end, dots[k], dot);
    }
    check_single_gradients(in, grad, dx, dots, begin, end);
  }

  // Calls for only one of the two gradients must give the same bits.
  void check_single_gradients(const Inputs<T>& in, const std::vector<T>& grad, const std::vector<std::vector<T>>& dx,
                  const std::vector<double>& dots, int64_t begin, int64_t end) {
    const auto backward = kernels.backward[Element<T>::dtype];
    std::vector<T> first = encoded<T>(std::vector<double>(in.n, 7));
    std::vector<void*> pointers(in.count, nullptr);
    std::vector<double> dots_alone(in.count);
    backward(grad.data(), in.pointers.data(), in.weights.data(), in.count, pointers.data(), dots_alone.data(), begin,
             end, false);
    CHECK(same_bits(dots, dots_alone), "the weights' gradient depends on the inputs'");
    pointers[0] = first.data();
    const std::vector<const void*> no_inputs(in.count, nullptr);
    backward(grad.data(), no_inputs.data(), in.weights.data(), in.count, pointers.data(), nullptr, begin, end, false);
    CHECK(same_bits(first, dx[0]), "the inputs' gradient depends on the weights'");
  }

  // Streaming stores must not change the result. They are used for aligned arrays only, so unaligned ones are tested
  // too.
  void check_bypass_cache(const Inputs<T>& in, const std::vector<T>& grad) {
    constexpr size_t line = 64 / sizeof(T);
    for (const size_t offset : {size_t(0), size_t(1)}) {
      std::vector<std::vector<T>> cached(in.count, std::vector<T>(in.n + 2 * line)), streamed = cached;
      std::vector<double> dots(in.count), dots_streamed(in.count);
      const auto run = [&](std::vector<std::vector<T>>& dx, std::vector<double>& sums, bool bypass_cache) {
        std::vector<void*> pointers;
        for (std::vector<T>& x : dx) {
          const uintptr_t to_line = -uintptr_t(x.data()) % 64;
          pointers.push_back(x.data() + to_line / sizeof(T) + offset);
        }
        kernels.backward[Element<T>::dtype](grad.data(), in.pointers.data(), in.weights.data(), in.count,
                                            pointers.data(), sums.data(), 0, in.n, bypass_cache);
        for (int64_t k = 0; k < in.count; ++k) {
          const T* first = static_cast<const T*>(pointers[k]);
          dx[k] = std::vector<T>(first, first + in.n);
        }
      };
      run(cached, dots, false);
      run(streamed, dots_streamed, true);
      for (int64_t k = 0; k < in.count; ++k)
        CHECK(same_bits(cached[k], streamed[k]), "gradient of input %lld differs with streaming stores", (long long)k);
      CHECK(same_bits(dots, dots_streamed), "the weights' gradient differs with streaming stores");
    }
  }

  void run() {
    Random random{12};
    for (int64_t count = 1; count <= 70; ++count)
      for (const int64_t n : {1, 3, 15, 64, 129, 301}) {
        const Inputs<T> in(count, n, random);
        check_forward(in);
        const std::vector<T> grad = encoded<T>(random.normals(n));
        check_backward(in, grad, 0, n);
        check_backward(in, grad, n / 3, n - n / 5);
        check_bypass_cache(in, grad);
      }
    const Inputs<T> in(3, 8192 + 77, random);
    check_forward(in);
    check_backward(in, encoded<T>(random.normals(in.n)), 0, in.n);
    std::printf("%-8s forward at most %.2f of its bound, dots at most %.2f epsilon of the terms' sum\n",
                Element<T>::name, worst, worst_dot);
  }
};

static void test(const InstructionSet&) {
  Test<double>{mixed_op_kernels()}.run();
  Test<float>{mixed_op_kernels()}.run();
  Test<bfloat16>{mixed_op_kernels()}.run();
  Test<float16>{mixed_op_kernels()}.run();
}

int main() { return run(test); }
