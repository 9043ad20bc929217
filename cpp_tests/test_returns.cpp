// The scans over time and the targets of transitions, on columns and rows in one go and in pieces: the same bits.
// Buffers have exactly their size, flags included.
#include "projection_reference.h"
#include "returns_reference.h"
#include "run.h"
#include "td_reference.h"

using namespace automl_ext;

struct Cpu {
  const ReturnsKernels& kernels;

  template <class T>
  std::vector<std::vector<T>> run(const ReturnsKernels::Columns* table, Trajectory x, int count,
                                  std::vector<int64_t>* last) const {
    const auto kernel = table[Element<T>::dtype];
    const int64_t size = x.steps * x.columns;
    std::vector<std::vector<T>> out(count, std::vector<T>(size)), pieces = out;
    std::vector<int64_t> out_last(size), last_pieces(size);
    for (int k = 0; k < count; ++k) x.out[k] = out[k].data();
    x.last = out_last.data();
    kernel(x, 0, x.columns);
    for (int k = 0; k < count; ++k) x.out[k] = pieces[k].data();
    x.last = last_pieces.data();
    for (int64_t begin = 0, step = 1; begin < x.columns; begin += step, step += 2)
      kernel(x, begin, std::min(begin + step, x.columns));
    for (int k = 0; k < count; ++k) CHECK(same_bits(out[k], pieces[k]), "output %d differs in pieces", k);
    CHECK(same_bits(out_last, last_pieces), "last differs in pieces");
    if (last) *last = out_last;
    return out;
  }
};

template <class T>
static void project(const ReturnsKernels& kernels, Projection x) {
  const auto kernel = kernels.projection[Element<T>::dtype];
  std::vector<double> scratch(x.atoms);
  std::vector<T> pieces(x.rows * x.atoms);
  const void* const out = x.out;
  kernel(x, 0, x.rows, scratch.data());
  x.out = pieces.data();
  for (int64_t row = 0; row < x.rows; row += 5) kernel(x, row, std::min(row + 5, x.rows), scratch.data());
  CHECK(!std::memcmp(out, pieces.data(), pieces.size() * sizeof(T)), "projection differs in pieces");
}

template <class T>
static void td_targets(const ReturnsKernels& kernels, TdTargets x) {
  const auto kernel = kernels.td_targets[Element<T>::dtype];
  std::vector<T> pieces(x.rows);
  const void* const out = x.out;
  kernel(x, 0, x.rows);
  x.out = pieces.data();
  for (int64_t row = 0; row < x.rows; row += 5) kernel(x, row, std::min(row + 5, x.rows));
  CHECK(!std::memcmp(out, pieces.data(), pieces.size() * sizeof(T)), "td_targets differ in pieces");
}

template <class T>
static void test_type(const InstructionSet& set) {
  Random random{13};
  const ReturnsKernels& kernels = set.kernels.returns;
  const Cpu cpu{kernels};
  const auto check = [&](int64_t steps, int64_t columns) {
    const Episodes<T> episodes(steps, columns, random);
    Scans<T, Cpu>{cpu, episodes}.check_all(random);
  };
  for (const int64_t columns : {1, 2, 7, 16, 17, 33, 100, 1030})
    for (const int64_t steps : {1, 2, 29}) check(steps, columns);
  check(3, 8300);    // several strips of columns
  check(270, 1030);  // larger than the caches near the core
  for (const int64_t atoms : {2, 3, 21, 51})
    for (const double discount : {0.9, std::nan("")})
      check_projection<T>(21, atoms, discount, random, [&](const Projection& x) { project<T>(kernels, x); });
  for (const int64_t actions : {1, 2, 3, 4, 7, 16, 18, 32, 33, 64, 100})
    for (const bool online : {false, true})
      for (const bool own : {false, true})
        check_td_targets<T>(77, actions, online, own, random, [&](const TdTargets& x) { td_targets<T>(kernels, x); });
}

static void test(const InstructionSet& set) {
  test_type<double>(set);
  test_type<float>(set);
  test_type<bfloat16>(set);
  test_type<float16>(set);
}

int main() { return run(test); }
