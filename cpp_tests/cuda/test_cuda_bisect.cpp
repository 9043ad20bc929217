// The CUDA kernels of alpha-entmax, normmax and budget-sparsemax, run on the CPU.
#include "../cuda_on_cpu/cuda_on_cpu.h"

#include "../../csrc/bisect/bisect_cuda.cu"
#include "../references/bisect_case.h"
#include "cuda_types.h"

using namespace automl_ext;

template <class T>
static void test_type() {
  using C = Compute<T>;
  const auto forward = [](int map, const T* x, const C* parameters, T* p, int64_t n, int64_t rows) {
    launch_bisect(map, Element<T>::dtype, x, {parameters, 1, 0}, p, rows, n, nullptr);
  };
  const auto backward = [](int map, const T* g, const T* p, const C* parameters, T* dx, C* of_parameter, int64_t n,
                           int64_t rows) {
    launch_bisect_backward(map, Element<T>::dtype, g, p, {parameters, 1, 0}, dx, of_parameter, rows, n, nullptr);
  };
  const BisectCase<T, decltype(forward), decltype(backward)> test_case{forward, backward};
  for (const int64_t n : {1, 2, 7, 8, 31, 100}) test_case.check_values(n, 9);
  test_case.check_values(258, 3);
  const auto exact = [](int map, const std::vector<double>& x, const std::vector<double>& p,
                        const std::vector<double>& g, double parameter) {
    if (sizeof(T) == 8) return bisect_differences(map, x, g, parameter);
    const int64_t n = int64_t(p.size());
    std::vector<double> dx(p.size() + 1);
    if constexpr (KERNEL_COMPILES(kFloat64))
      launch_bisect_backward(map, kFloat64, g.data(), p.data(), {&parameter, 1, 0}, dx.data(), &dx[n], 1, n, nullptr);
    return Reals(dx.begin(), dx.end());
  };
  if constexpr (sizeof(T) == 8 || KERNEL_COMPILES(kFloat64))
    for (const int64_t n : {7, 20, 37}) test_case.check_gradients(n, 9, exact);
  if constexpr (sizeof(T) == 8) test_case.check_gradients(260, 2, exact);

  // The order of threads must not change a bit; one parameter for all rows; misaligned rows.
  Random random{3};
  const int64_t n = 300, rows = 2;
  const std::vector<T> x = encoded<T>(random.normals(n * rows + 1));
  for (const int map : {kAlphaEntmax, kBudget})
    for (const int64_t offset : {0, 1}) {
      std::vector<T> first;
      for (unsigned seed = 0; seed < cuda_on_cpu::orders(2); ++seed) {
        cuda_on_cpu::seed = seed;
        std::vector<T> p(n * rows + 1), dx(n * rows + 1);
        std::vector<C> of_parameter(rows);
        launch_bisect(map, Element<T>::dtype, x.data() + offset, {nullptr, 0, 1.7}, p.data() + offset, rows, n,
                      nullptr);
        launch_bisect_backward(map, Element<T>::dtype, x.data() + offset, p.data() + offset, {nullptr, 0, 1.7},
                               dx.data() + offset, of_parameter.data(), rows, n, nullptr);
        p.insert(p.end(), dx.begin(), dx.end());
        if (seed == 0) first = p;
        CHECK(same_bits(p, first), "the result depends on the order of threads");
      }
    }
}

int main() {
  for_compiled_types([](auto element) { test_type<decltype(element)>(); });
  return finish();
}
