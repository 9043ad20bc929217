// The CUDA kernels of the categorical projection, run on the CPU: one warp or one block per row. A part of
// test_cuda_targets.cpp.
#pragma once
#include "../../csrc/targets/projection_kernels.cuh"
#include "../../csrc/targets/targets_cuda.h"
#include "../references/projection_reference.h"
#include "cuda_types.h"

namespace projection_part {
using namespace automl_ext;

template <class T>
static void launch(const Projection& x) {
  targets_launches().projection(Element<T>::dtype, x, nullptr);
}
// One block per row at any length, with small blocks.
template <class T>
static void launch_long(const Projection& x) {
  KERNEL_LAUNCH(projection_long_rows<T>, 3, 64, 0, nullptr, x, projection_scale(x));
}

template <class T>
static void test_type() {
  Random random{19};
  const double own = std::nan("");
  for (const int64_t atoms : {2, 3, 7, 31, 32, 33, 51, 100, 256, 257, 601, 1000, 5000})
    for (const double discount : {0.9, 1.0, 0.03, 3.0, -0.7, own}) {
      if (atoms > 601 && discount != -0.7 && discount == discount) continue;
      cuda_on_cpu::seed = unsigned(atoms);
      check_projection<T>(atoms > 601 ? 3 : 10, atoms, discount, random, launch<T>);
    }
  for (const int64_t atoms : {5, 80})
    for (const double discount : {0.9, own}) check_projection<T>(9, atoms, discount, random, launch_long<T>);
}

// A row is NaN if its positions or masses are not finite numbers; other rows are not affected.
template <class T>
static void test_nan(int64_t atoms) {
  std::vector<T> probs = encoded<T>(std::vector<double>(5 * atoms, 1 / double(atoms)));
  std::vector<T> rewards = encoded<T>({0, NAN, 0, INFINITY, NAN}), discounts = encoded<T>({1, 1, NAN, 0.5, 1});
  std::vector<uint8_t> terminated = {0, 0, 0, 0, 1};
  std::vector<T> out(5 * atoms);
  probs[1] = Element<T>::encode(NAN);
  launch<T>({5, atoms, probs.data(), rewards.data(), discounts.data(), terminated.data(), out.data(), 0, -1, 1});
  for (int64_t i = 0; i < 5 * atoms; ++i) {
    const double y = Element<T>::decode(out[i]), expected = i % atoms == atoms - 1 ? 1 : 0;
    if (i / atoms == 3)  // all mass is clamped to the last atom
      CHECK(std::fabs(y - expected) <= 4 * Element<T>::epsilon, "%s row 3, atom %lld: %g", Element<T>::name,
            (long long)(i % atoms), y);
    else
      CHECK(y != y, "%s row %lld, atom %lld: %g", Element<T>::name, (long long)(i / atoms), (long long)(i % atoms), y);
  }
}

// Spacings smaller than the rounding error of the atoms' values: no mass is lost.
static void test_degenerate() {
  const int64_t atoms = 51;
  const std::vector<double> probs(atoms, 1 / double(atoms)), rewards(1);
  const std::vector<uint8_t> terminated(1);
  for (const double range : {2.0, 20.0, 70.0}) {
    std::vector<double> out(atoms);
    launch<double>(
        {1, atoms, probs.data(), rewards.data(), nullptr, terminated.data(), out.data(), 1, 1e16, 1e16 + range});
    double total = 0;
    for (const double x : out) total += x;
    CHECK(std::fabs(total - 1) < 1e-12, "range %g at 1e16: mass %.17g", range, total);
  }
}

static void test() {
  for_compiled_types([](auto element) { test_type<decltype(element)>(); });
  for_compiled_types([](auto element) { test_nan<decltype(element)>(sizeof(element) == 4 ? 300 : 51); });
  if constexpr (KERNEL_COMPILES(kFloat64)) test_degenerate();
  using Wide = std::conditional_t<KERNEL_COMPILES(kFloat32), float, double>;
  Random random{29};
  check_projection<Wide>(3, 40000, 0.9, random, launch<Wide>);
}

}  // namespace projection_part
