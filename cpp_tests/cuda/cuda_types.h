// The element types whose launches this build compiles: all, or two in sanitizer builds (cuda_on_cpu/cuda_on_cpu.h).
#pragma once
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

}  // namespace automl_ext
