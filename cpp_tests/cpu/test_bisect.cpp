// Alpha-entmax, normmax and budget-sparsemax and their gradients.
#include "../instruction_sets/run.h"
#include "../references/bisect_case.h"

using namespace automl_ext;

template <class T>
static auto case_of() {
  using C = typename Element<T>::Compute;
  const auto& kernels = bisect_kernels();
  const auto forward = [&kernels](int map, const T* x, const C* parameters, T* p, int64_t n, int64_t rows) {
    std::vector<double> scratch(bisect_scratch_bytes(n) / sizeof(double));
    kernels.forward[Element<T>::dtype](map, x, {parameters, 1, 0}, p, n, 0, rows, scratch.data());
  };
  const auto backward = [&kernels](int map, const T* g, const T* p, const C* parameters, T* dx, C* of_parameter,
                                   int64_t n, int64_t rows) {
    kernels.backward[Element<T>::dtype](map, g, p, {parameters, 1, 0}, dx, of_parameter, n, 0, rows);
  };
  return BisectCase<T, decltype(forward), decltype(backward)>{forward, backward};
}

template <class T>
static void test_type() {
  const auto test_case = case_of<T>();
  for (const int64_t n : {1, 2, 7, 8, 31, 33}) test_case.check_values(n, 19);
  test_case.check_values(100, 9);
  if (sizeof(T) == 4) test_case.check_values(1003, 4);
  const auto wide = case_of<double>();
  const auto exact = [&](int map, const std::vector<double>& x, const std::vector<double>& p,
                         const std::vector<double>& g, double parameter) {
    if (sizeof(T) == 8) return bisect_differences(map, x, g, parameter);
    const int64_t n = int64_t(p.size());
    std::vector<double> dx(p.size() + 1);
    wide.backward(map, g.data(), p.data(), &parameter, dx.data(), &dx[n], n, 1);
    return Reals(dx.begin(), dx.end());
  };
  for (const int64_t n : {2, 7, 20, 37}) test_case.check_gradients(n, 9, exact);
}

static void test(const InstructionSet&) {
  const Reals half = bisect_reference(kAlphaEntmax, {0, 0, -5}, 2);
  CHECK(std::fabs(half[0] - 0.5L) < 1e-18L && half[2] == 0, "the reference is wrong");
  test_type<double>();
  test_type<float>();
  test_type<bfloat16>();
  test_type<float16>();
}

int main() { return run(test); }
