// The targets of Q-learning on CUDA.
#include "cuda_on_cpu/cuda_on_cpu.h"

#include "../csrc/targets/targets_cuda.cu"
#include "td_reference.h"

using namespace automl_ext;

template <class T>
static void test_type() {
  Random random{23};
  const auto launch = [](const TdTargets& x) { targets_launches().td_targets(Element<T>::dtype, x, nullptr); };
  for (const int64_t actions : {1, 2, 7, 8, 9, 18, 100})
    for (const int64_t rows : {1, 15, 16, 17, 45})
      for (const bool online : {false, true})
        for (const bool own : {false, true}) {
          cuda_on_cpu::seed = unsigned(actions);
          check_td_targets<T>(rows, actions, online, own, random, launch);
        }
}

int main() {
  test_type<double>(), test_type<float>(), test_type<bfloat16>(), test_type<float16>();
  return finish();
}
