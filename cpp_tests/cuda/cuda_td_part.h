// The CUDA kernels of td_targets, run on the CPU. A part of test_cuda_targets.cpp.
#pragma once
#include "../../csrc/targets/targets_cuda.h"
#include "../references/td_reference.h"
#include "cuda_types.h"

namespace td_part {
using namespace automl_ext;

template <class T>
static void launch(const TdTargets& x) {
  targets_launches().td_targets(Element<T>::dtype, x, nullptr);
}
// The first row and the others in two calls: the arrays of the second are not aligned.
template <class T>
static void launch_unaligned(const TdTargets& x) {
  TdTargets one = x, others = x;
  one.rows = 1;
  launch<T>(one);
  const auto next = [](const void* p, int64_t n) { return p ? static_cast<const T*>(p) + n : nullptr; };
  others.rows -= 1, others.terminated += 1, others.out = static_cast<T*>(x.out) + 1;
  others.q = next(x.q, x.actions), others.selector = next(x.selector, x.actions);
  others.rewards = next(x.rewards, 1), others.discounts = next(x.discounts, 1);
  launch<T>(others);
}
// Fewer blocks than the rows need.
template <class T>
static void launch_short_rows(const TdTargets& x) {
  KERNEL_LAUNCH(td_short_rows<T>, 2, kTdThreads, size_t(kTdThreads * x.actions) * sizeof(T), nullptr, x, true);
}
template <class T>
static void launch_long_rows(const TdTargets& x) {
  KERNEL_LAUNCH(td_long_rows<T>, 2, kTdThreads, 0, nullptr, x);
}

template <class T>
static void test_type() {
  Random random{23};
  for (const int64_t actions : {1, 2, 7, 8, 9, 18, 100, 200})  // the last are long rows, depending on the type
    for (const int64_t rows : {1, 45, 128, 200})
      for (const bool online : {false, true})
        for (const bool own : {false, true}) {
          if (rows == 200 && actions > 18) continue;
          cuda_on_cpu::seed = unsigned(actions);
          check_td_targets<T>(rows, actions, online, own, random, launch<T>);
        }
  check_td_targets<T>(140, 9, true, true, random, launch_unaligned<T>);
  check_td_targets<T>(600, 6, true, true, random, launch_short_rows<T>);
  check_td_targets<T>(100, 6, true, true, random, launch_long_rows<T>);
}

static void test() {
  for_compiled_types([](auto element) { test_type<decltype(element)>(); });
}

}  // namespace td_part
