// The CUDA kernels of mixed-op aggregation, run on the CPU, against loops in long double.
#define CUDA_ON_CPU_16_BITS  // they alone carry a rounding error from one chunk of inputs to the next
#include "../cuda_on_cpu/cuda_on_cpu.h"

#include "../../csrc/mixed_op/mixed_op_cuda.cu"
#include "../references/check.h"
#include "../references/numbers.h"
#include "cuda_types.h"

using namespace automl_ext;

// An array that starts `offset` elements after a 16-byte boundary, filled with 7.
template <class T>
class Array {
 public:
  Array(int64_t n, int64_t offset) : all_(n + offset, Element<T>::encode(7)), offset_(offset) {}
  Array(const std::vector<double>& values, int64_t offset) : Array(int64_t(values.size()), offset) {
    const std::vector<T> encoded_values = encoded<T>(values);
    std::copy(encoded_values.begin(), encoded_values.end(), all_.begin() + offset);
  }
  T* data() { return all_.data() + offset_; }
  const T* data() const { return all_.data() + offset_; }
  double operator[](int64_t i) const { return Element<T>::decode(data()[i]); }
  std::vector<T> values() const { return {all_.begin() + offset_, all_.end()}; }

 private:
  std::vector<T> all_;
  int64_t offset_;
};

// `count` inputs of n elements, and count + 3 weights. zeros: every third input has weight 0. misaligned: input 1 is
// not 16-byte aligned.
template <class T, class W>
struct Case {
  int64_t count, n;
  std::vector<Array<T>> x;
  std::vector<W> weights;
  std::vector<int64_t> positions;
  std::vector<const void*> pointers;

  Case(int64_t count_, int64_t n_, bool zeros, bool misaligned, Random& random) : count(count_), n(n_) {
    for (int64_t i = 0; i < count; ++i)
      x.emplace_back(random.normals(n), misaligned && i == std::min<int64_t>(1, count - 1));
    for (const Array<T>& e : x) pointers.push_back(e.data());
    weights = encoded<W>(random.normals(count + 3));
    for (int64_t i = 0; i < count; ++i) {
      positions.push_back(i < count / 2 ? count - i : i - count / 2);  // out of order; some are skipped
      if (zeros && i % 3 == 0) weights[positions[i]] = Element<W>::encode(0);
    }
  }
  double weight(int64_t i) const { return Element<W>::decode(weights[positions[i]]); }
};

template <class T, class W>
struct Test {
  using C = Compute<T>;
  static constexpr DType dtype = Element<T>::dtype, weights_dtype = Element<W>::dtype;
  static constexpr double half_ulp = sizeof(T) == 2 ? 0.501 : 0;
  Random random{17};

  std::vector<T> forward(const Case<T, W>& in, int64_t offset) {
    Array<T> y(in.n, offset);
    std::vector<char> scratch(mixed_op_scratch(dtype, in.count, in.n));
    launch_mixed_op(dtype, weights_dtype, in.pointers.data(), in.positions.data(), in.count, in.weights.data(),
                    y.data(), in.n, scratch.data(), nullptr);
    return y.values();
  }

  void check_forward(const Case<T, W>& in, const std::vector<T>& y) {
    for (int64_t i = 0; i < in.n; ++i) {
      long double expected = 0, magnitudes = 0;
      for (int64_t k = 0; k < in.count; ++k) {
        if (in.weight(k) == 0) continue;
        const long double term = (long double)in.weight(k) * in.x[k][i];
        expected += term, magnitudes += std::fabs(term);
      }
      const double got = Element<T>::decode(y[i]), error = double(std::fabs(got - expected));
      const double bound = double(magnitudes) * Element<C>::epsilon * (1 + std::sqrt(double(in.count))) +
                           half_ulp * ulp<T>(double(expected));
      CHECK(error <= bound, "%s K = %lld, n = %lld, i = %lld: got %.17g, expected %.17Lg", Element<T>::name,
            (long long)in.count, (long long)in.n, (long long)i, got, expected);
    }
  }

  struct Gradients {
    std::vector<Array<T>> inputs;
    std::vector<W> weights;
  };
  // needs: 0, 1 or 2: none, every other one, or all of the inputs need a gradient.
  static bool needs_input(int needs, int64_t i) { return needs == 2 || (needs == 1 && i % 2); }

  Gradients backward(const Case<T, W>& in, const Array<T>& grad, int needs, bool weights_need, int64_t offset) {
    Gradients out{{}, std::vector<W>(in.weights.size(), Element<W>::encode(7))};
    std::vector<void*> pointers;
    for (int64_t i = 0; i < in.count; ++i) out.inputs.emplace_back(in.n, offset);
    for (int64_t i = 0; i < in.count; ++i) pointers.push_back(needs_input(needs, i) ? out.inputs[i].data() : nullptr);
    const int64_t weights_count = int64_t(in.weights.size());
    std::vector<double> scratch(mixed_op_backward_scratch(in.count, weights_count, in.n) / 8, std::nan(""));
    const std::vector<const void*> no_inputs(in.count, nullptr);
    launch_mixed_op_backward(dtype, weights_dtype, grad.data(), (weights_need ? in.pointers : no_inputs).data(),
                             in.positions.data(), in.count, in.weights.data(), weights_count,
                             {pointers.data(), weights_need ? out.weights.data() : nullptr}, in.n,
                             weights_need ? scratch.data() : nullptr, nullptr);
    return out;
  }

  void check_backward(const Case<T, W>& in, const Array<T>& grad, int needs, bool weights_need, const Gradients& out) {
    for (int64_t k = 0; k < in.count; ++k)
      for (int64_t i = 0; i < in.n; ++i) {
        const double got = out.inputs[k][i];
        const double expected =
            needs_input(needs, k) ? Element<T>::decode(Element<T>::encode(C(in.weight(k)) * C(grad[i]))) : 7;
        CHECK(got == expected, "%s K = %lld, n = %lld, input %lld, i = %lld: got %.17g, expected %.17g",
              Element<T>::name, (long long)in.count, (long long)in.n, (long long)k, (long long)i, got, expected);
      }
    std::vector<long double> dots(in.weights.size(), weights_need ? 0 : 7), magnitudes(in.weights.size(), 0);
    for (int64_t k = 0; weights_need && k < in.count; ++k)
      for (int64_t i = 0; i < in.n; ++i) {
        const long double term = (long double)grad[i] * in.x[k][i];
        dots[in.positions[k]] += term, magnitudes[in.positions[k]] += std::fabs(term);
      }
    for (size_t p = 0; p < dots.size(); ++p) {
      const double got = Element<W>::decode(out.weights[p]), error = double(std::fabs(got - dots[p]));
      const double rounding = sizeof(W) == 8 ? 0 : 0.501 * ulp<W>(double(dots[p]));
      CHECK(std::isnan(dots[p]) ? std::isnan(got) : error <= 2 * Element<C>::epsilon * double(magnitudes[p]) + rounding,
            "%s K = %lld, n = %lld, weight %d: got %.17g, expected %.17Lg", Element<T>::name, (long long)in.count,
            (long long)in.n, int(p), got, dots[p]);
    }
  }

  static bool same(const Gradients& a, const Gradients& b) {
    bool all = same_bits(a.weights, b.weights);
    for (size_t k = 0; k < a.inputs.size(); ++k) all &= same_bits(a.inputs[k].values(), b.inputs[k].values());
    return all;
  }

  // Results must not depend on the order of threads. All combinations of needed gradients are tested for small cases.
  void check_all(const Case<T, W>& in, int64_t offset, unsigned seeds) {
    const Array<T> grad(random.normals(in.n), offset);
    const std::vector<T> y = forward(in, offset);
    check_forward(in, y);
    const Gradients gradients = backward(in, grad, 2, true, offset);
    check_backward(in, grad, 2, true, gradients);
    for (int needs = 0; needs < 3 && in.n * in.count < 3000; ++needs)
      for (const bool weights_need : {false, needs != 2})
        check_backward(in, grad, needs, weights_need, backward(in, grad, needs, weights_need, offset));
    for (unsigned seed = 1; seed < cuda_on_cpu::orders(seeds); ++seed) {
      cuda_on_cpu::seed = seed;
      CHECK(same_bits(forward(in, offset), y), "the result depends on the order of threads");
      CHECK(same(backward(in, grad, 2, true, offset), gradients), "the gradient depends on the order of threads");
    }
    cuda_on_cpu::seed = 0;
  }

  void check_lengths() {
    constexpr int64_t tile = pack_width<T, 8>() * kMixedOpThreads * kForwardPacks;
    static_assert(kForwardPacks * 2 == kBackwardPacks, "the lengths below must include the tiles of both passes");
    std::vector<int64_t> lengths = {1, 2, 7, 31, 32, 33, 100, 1000, 5000};
    for (const int64_t around : {tile, 2 * tile}) lengths.insert(lengths.end(), {around - 1, around, around + 1});
    for (const int64_t n : lengths)
      for (const int64_t count : {1, 3, 8}) {
        if (n > 1000 && count != 3) continue;
        const bool odd = (n + count) % 2;
        check_all(Case<T, W>(count, n, odd, false, random), 0, n < 100 ? 4 : 1);
        if (n > 1 && (n <= 100 || count == 3)) check_all(Case<T, W>(count, n, !odd, true, random), !odd, 1);
      }
  }

  // The largest number of inputs of one launch, one input more, and three launches.
  void check_counts() {
    for (const int64_t count : {63, 64, 65, 130})
      for (const int64_t n : {33, 700})
        if (n < 700 || count == 65) check_all(Case<T, W>(count, n, n == 33, false, random), 0, n == 33 ? 3 : 1);
  }

  // Sums of half types are rounded once, even over several launches: 2048 + 1 + 1 + … in float16.
  void check_carry() {
    const int64_t count = 130, n = 9;
    Case<T, W> in(count, n, false, false, random);
    const double large = 2 / Element<T>::epsilon;
    for (int64_t k = 0; k < count; ++k) {
      in.weights[in.positions[k]] = Element<W>::encode(1);
      for (int64_t i = 0; i < n; ++i) in.x[k].data()[i] = Element<T>::encode(k ? 1 : large);
    }
    const std::vector<T> y = forward(in, 0);
    const std::vector<T> expected = encoded<T>(std::vector<double>(n, large + 129));
    CHECK(same_bits(y, expected), "%s: got %g", Element<T>::name, Element<T>::decode(y[0]));
  }

  // The forward pass does not read inputs of weight 0; the backward pass does.
  void check_not_read() {
    const int64_t n = 100;
    for (const int64_t count : {1, 8, 70}) {
      Case<T, W> in(count, n, true, false, random);
      for (int64_t k = 0; k < count; k += 3) in.x[k].data()[n / 2] = Element<T>::encode(std::nan(""));
      check_forward(in, forward(in, 0));
      for (int64_t k = 0; k < count; k += 3) in.pointers[k] = nullptr;
      check_forward(in, forward(in, 0));
      for (int64_t k = 0; k < count; ++k) in.pointers[k] = in.x[k].data();
      const Array<T> grad(random.normals(n), 0);
      check_backward(in, grad, 2, true, backward(in, grad, 2, true, 0));
    }
  }

  // Two inputs with the same position share a weight; their dots are added, also across launches.
  void check_repeated() {
    for (const int64_t count : {2, 70}) {
      Case<T, W> in(count, 50, false, false, random);
      in.positions[count - 1] = in.positions[0];
      check_all(in, 0, 2);
    }
  }

  void check_empty() {
    Case<T, W> in(3, 0, false, false, random);
    const Array<T> grad(0, 0);
    check_backward(in, grad, 2, true, backward(in, grad, 2, true, 0));
    check_backward(in, grad, 2, false, backward(in, grad, 2, false, 0));
  }

  // Fewer blocks than tiles and than weights; launches have no more than run at once.
  void check_few_blocks() {
    CHECK(resident_grid(1000, 6).x == unsigned(6 * cuda_on_cpu::multiprocessors) && resident_grid(5, 6).x == 5,
          "%u, %u blocks", resident_grid(1000, 6).x, resident_grid(5, 6).x);
    cuda_on_cpu::multiprocessors = 1;
    const int64_t n = 9000;
    const Case<T, W> in(3, n, true, false, random);
    const Array<T> grad(random.normals(n), 0);
    const MixedOpTiles<T, kForwardPacks> forward_tiles(n, true);
    const MixedOpTiles<T, kBackwardPacks> tiles(n, true);
    Gradients out{std::vector<Array<T>>(3, Array<T>(n, 0)), std::vector<W>(in.weights.size(), Element<W>::encode(7))};
    MixedOpInputs chunk = {};
    chunk.count = 3;
    for (int i = 0; i < 3; ++i) {
      chunk.x[i] = in.pointers[i];
      chunk.dx[i] = out.inputs[i].data();
      chunk.position[i] = in.positions[i];
    }
    Array<T> y(n, 0);
    std::vector<double> dots(3 * tiles.count, std::nan(""));
    const C* const none = nullptr;
    C* const nowhere = nullptr;
    KERNEL_LAUNCH((mixed_op_forward<T, W>), dim3(2), kMixedOpThreads, 0, nullptr, chunk, in.weights.data(), none,
                  nowhere, y.data(), forward_tiles);
    KERNEL_LAUNCH((mixed_op_backward<T, W>), dim3(2), kMixedOpThreads, 0, nullptr, chunk, grad.data(),
                  in.weights.data(), dots.data(), tiles);
    const double* const nothing = nullptr;
    double* const nothing_after = nullptr;
    KERNEL_LAUNCH((mixed_op_weights_backward<W>), dim3(2), kMixedOpThreads, 0, nullptr, chunk, dots.data(), tiles.count,
                  int64_t(in.weights.size()), nothing, nothing_after, out.weights.data());
    check_forward(in, y.values());
    check_backward(in, grad, 2, true, out);
    CHECK(same_bits(y.values(), forward(in, 0)) && same(out, backward(in, grad, 2, true, 0)),
          "the result depends on the grid");
    cuda_on_cpu::multiprocessors = 4;
  }

  void run() {
    check_lengths();
    check_counts();
    if (sizeof(T) == 2) check_carry();
    check_not_read();
    check_repeated();
    check_empty();
    check_few_blocks();
  }
};

int main() {
#ifdef CUDA_ON_CPU_TSAN  // TSan is slow, and races do not depend on the types.
  Test<bfloat16, float>().run();
#else
  for_compiled_types([](auto element) {
    using T = decltype(element);
    Test<T, T>().run();
    if constexpr (sizeof(T) == 2) Test<T, float>().run();
  });
#endif
  return finish();
}
