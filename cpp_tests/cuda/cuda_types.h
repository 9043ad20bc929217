// The element types whose launches this build compiles: all, or two in sanitizer builds (cuda_on_cpu/cuda_on_cpu.h).
#pragma once
#include <vector>

#include "../../csrc/common/cuda/types.cuh"

namespace automl_ext {

template <DType dtype, class T, class Test>
void test_if_compiled(const Test& test) {
  if constexpr (KERNEL_COMPILES(dtype)) test(T());
}

// Calls the generic lambda `test` with a value of each compiled type.
template <class Test>
void for_compiled_types(const Test& test) {
  test_if_compiled<kFloat64, double>(test);
  test_if_compiled<kFloat32, float>(test);
  test_if_compiled<kBFloat16, bfloat16>(test);
  test_if_compiled<kFloat16, float16>(test);
}

// Rows of n elements as columns, the rows of [outer, n, inner]; `back`: the reverse.
template <class T>
std::vector<T> transposed(const std::vector<T>& x, int64_t n, int64_t inner, bool back = false) {
  std::vector<T> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t row = int64_t(i) / n, outer = row / inner;
    const size_t at = size_t((outer * n + int64_t(i) % n) * inner + row % inner);
    y[back ? i : at] = x[back ? at : i];
  }
  return y;
}

}  // namespace automl_ext
