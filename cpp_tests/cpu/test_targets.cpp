// The categorical projection and td_targets against their references. Results are bitwise independent of the row ranges
// of the calls. Buffers have no padding, so that sanitizers find accesses out of bounds.
#include "../instruction_sets/run.h"
#include "../references/projection_reference.h"
#include "../references/td_reference.h"

using namespace automl_ext;

template <class T>
static void project(const TargetsKernels& kernels, Projection x) {
  const auto kernel = kernels.projection[Element<T>::dtype];
  std::vector<double> scratch(x.atoms);
  std::vector<T> pieces(x.rows * x.atoms);
  const void* const out = x.out;
  kernel(x, 0, x.rows, scratch.data());
  x.out = pieces.data();
  for (int64_t row = 0; row < x.rows; row += 5) kernel(x, row, std::min(row + 5, x.rows), scratch.data());
  CHECK(!std::memcmp(out, pieces.data(), pieces.size() * sizeof(T)), "the projection depends on the row ranges");
}

template <class T>
static void td_targets(const TargetsKernels& kernels, TdTargets x) {
  const auto kernel = kernels.td_targets[Element<T>::dtype];
  std::vector<T> pieces(x.rows);
  const void* const out = x.out;
  kernel(x, 0, x.rows);
  x.out = pieces.data();
  for (int64_t row = 0; row < x.rows; row += 5) kernel(x, row, std::min(row + 5, x.rows));
  CHECK(!std::memcmp(out, pieces.data(), pieces.size() * sizeof(T)), "td_targets depends on the row ranges");
}

template <class T>
static void test_type() {
  Random random{13};
  const TargetsKernels& kernels = targets_kernels();
  for (const int64_t atoms : {2, 3, 21, 51})
    for (const double discount : {0.9, std::nan("")})
      check_projection<T>(21, atoms, discount, random, [&](const Projection& x) { project<T>(kernels, x); });
  for (const int64_t actions : {1, 2, 3, 4, 7, 16, 18, 32, 33, 64, 100})
    for (const bool online : {false, true})
      for (const bool own : {false, true})
        check_td_targets<T>(77, actions, online, own, random, [&](const TdTargets& x) { td_targets<T>(kernels, x); });
}

static void test(const InstructionSet&) {
  test_type<double>();
  test_type<float>();
  test_type<bfloat16>();
  test_type<float16>();
}

int main() { return run(test); }
