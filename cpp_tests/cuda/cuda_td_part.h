// The CUDA kernel of td_targets, run on the CPU. A part of test_cuda_targets.cpp.
#pragma once
#include "../../csrc/targets/targets_cuda.h"
#include "../references/td_reference.h"
#include "cuda_types.h"

namespace td_part {
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

static void test() {
  for_compiled_types([](auto element) { test_type<decltype(element)>(); });
}

}  // namespace td_part
