// The returns kernels against the reference. Results are bitwise independent of the column ranges of the calls. Buffers
// have no padding, so that sanitizers find accesses out of bounds.
#include "../instruction_sets/run.h"
#include "../references/returns_reference.h"

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
    for (int k = 0; k < count; ++k) CHECK(same_bits(out[k], pieces[k]), "output %d depends on the column ranges", k);
    CHECK(same_bits(out_last, last_pieces), "last depends on the column ranges");
    if (last) *last = out_last;
    return out;
  }
};

template <class T>
static void test_type() {
  Random random{13};
  const ReturnsKernels& kernels = returns_kernels();
  const Cpu cpu{kernels};
  const auto check = [&](int64_t steps, int64_t columns) {
    for (const bool carries : {false, true}) {
      const Episodes<T> episodes(steps, columns, random, 0.1, carries);
      Scans<T, Cpu>{cpu, episodes}.check_all(random);
    }
  };
  for (const int64_t columns : {1, 2, 7, 16, 17, 33, 100, 1030})
    for (const int64_t steps : {1, 2, 29}) check(steps, columns);
  check(3, 8300);    // several strips of columns
  check(270, 1030);  // larger than kNearBytes: with prefetching
}

static void test(const InstructionSet&) {
  test_type<double>();
  test_type<float>();
  test_type<bfloat16>();
  test_type<float16>();
}

int main() { return run(test); }
