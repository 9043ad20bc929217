// The CUDA kernels of the returns family, run on the CPU through their launches: with and without chunks of time, in
// several orders of threads. Combined chunks must propagate infinities and NaN like a step-by-step scan.
#include "../cuda_on_cpu/cuda_on_cpu.h"

#include "../../csrc/returns/returns_cuda.cu"
#include "../references/returns_reference.h"
#include "cuda_types.h"

using namespace automl_ext;

struct Cuda {
  const ReturnsLaunches& kernels = returns_launches();

  template <class T>
  std::vector<std::vector<T>> run(ReturnsLaunches::Launch launch, Trajectory x, int count,
                                  std::vector<int64_t>* last) const {
    std::vector<std::vector<T>> out(count, std::vector<T>(x.steps * x.columns));
    std::vector<int64_t> out_last(x.steps * x.columns);
    for (int k = 0; k < count; ++k) x.out[k] = out[k].data();
    x.last = out_last.data();
    launch(Element<T>::dtype, x, nullptr);
    if (last) *last = out_last;
    return out;
  }
};

struct Case {
  int64_t steps, columns, n;
};

template <class T>
static void test_case(const Case& c, Random& random) {
  const Cuda cuda;
  Episodes<T> some(c.steps, c.columns, random);
  some.n = c.n;
  Scans<T, Cuda>{cuda, some}.check_all(random);
  // No episode ends, and distant steps contribute.
  Episodes<T> endless(c.steps, c.columns, random, 0);
  endless.gamma = 0.99, endless.lam = 0.95, endless.n = 2;
  Scans<T, Cuda>{cuda, endless}.check_all(random);
  // Invalid steps carry: runs of them, also across chunks of time, with few and with no ends.
  for (const double rate : {0.1, 0.001}) {
    Episodes<T> masked(c.steps, c.columns, random, rate, true);
    masked.n = c.n;
    Scans<T, Cuda>{cuda, masked}.check_all(random);
  }
}

// Lambda-returns with lambda = 1, these rewards and this discount; all values are 0.
static std::vector<float> returns_of(const std::vector<float>& rewards, float discount, int64_t columns) {
  const std::vector<float> next(rewards.size()), discounts(rewards.size(), discount);
  Trajectory x{};
  x.steps = int64_t(rewards.size()) / columns, x.columns = columns, x.lam = 1;
  x.rewards = rewards.data(), x.next_values = next.data(), x.discounts = discounts.data();
  return Cuda().run<float>(returns_launches().lambda_returns, x, 1, nullptr)[0];
}

static void test_overflow(int64_t steps, int64_t columns) {
  // The product of a chunk's discounts overflows to infinity; its factor is 0.
  for (const float y : returns_of(std::vector<float>(steps * columns), 1e6f, columns))
    CHECK(y == 0, "no rewards, %lld x %lld: %g", (long long)steps, (long long)columns, y);
  // The product underflows to 0; its factor is infinite or NaN, from one step of one column on.
  for (const float special : {INFINITY, -INFINITY, NAN})
    for (const int64_t when : {steps - 1, steps / 2, int64_t(3)}) {
      const int64_t which = columns / 2;
      std::vector<float> rewards(steps * columns, 1.f);
      rewards[when * columns + which] = special;
      const std::vector<float> out = returns_of(rewards, 1e-8f, columns);
      for (int64_t i = 0; i < steps * columns; ++i) {
        const bool reached = i % columns == which && i / columns <= when;
        CHECK(reached ? out[i] == special || (out[i] != out[i] && special != special) : std::fabs(out[i] - 1) < 1e-6,
              "%g at step %lld of %lld: %g at step %lld of column %lld", special, (long long)when, (long long)steps,
              out[i], (long long)(i / columns), (long long)(i % columns));
      }
    }
}

static void test_repeats() {
  Random random{17};
  const Episodes<float> episodes(200, 40, random);
  std::vector<std::vector<float>> first;
  for (cuda_on_cpu::seed = 0; cuda_on_cpu::seed < 6; ++cuda_on_cpu::seed) {
    const auto out = Cuda().run<float>(returns_launches().vtrace, episodes.trajectory(), 2, nullptr);
    if (first.empty()) first = out;
    for (int k = 0; k < 2; ++k) CHECK(same_bits(first[k], out[k]), "output %d depends on the order of threads", k);
  }
}

// Few columns: one tile covers all steps, divided among as many threads as possible. With more, blocks read whole sectors.
static void test_blocks() {
  struct {
    int64_t steps, columns, size;
    unsigned width, chunks;
  } const cases[] = {{1024, 8, 4, 2, 128},   {1024, 8, 2, 2, 128},   {1024, 1, 4, 1, 128},
                     {5000, 8, 4, 1, 256},   {128, 8, 4, 8, 16},     {1024, 1024, 4, 8, 32},
                     {1024, 1024, 2, 8, 32}, {1024, 1024, 8, 4, 64}, {128, 262144, 4, 128, 1}};
  const int before = cuda_on_cpu::multiprocessors;
  cuda_on_cpu::multiprocessors = 132;
  for (const auto& c : cases) {
    Trajectory x{};
    x.steps = c.steps, x.columns = c.columns;
    const dim3 block = scan_block(x, 8, c.size);
    CHECK(block.x == c.width && block.y == c.chunks, "%lld x %lld of %lld bytes: %u columns, %u chunks",
          (long long)c.steps, (long long)c.columns, (long long)c.size, block.x, block.y);
  }
  cuda_on_cpu::multiprocessors = before;
}

// TSan is slow, and does not detect races in large blocks.
#ifdef CUDA_ON_CPU_TSAN
constexpr bool kSmall = true;
#else
constexpr bool kSmall = false;
#endif

static void test_scans_and_windows() {
  Random randoms[kDTypes] = {{11}, {12}, {13}, {14}};  // so that data of a type do not depend on the others
  const Case cases[] = {{1, 1, 1},    {1, 33, 3},   {2, 7, 1},     {7, 2, 3},    {8, 31, 8},   {9, 32, 20},
                        {31, 33, 5},  {33, 100, 3}, {100, 31, 7},  {32, 1, 40},  {1000, 1, 3}, {1000, 2, 1000},
                        {70, 150, 2}, {5000, 2, 3}, {18, 1030, 3}, {2, 5000, 2}, {1024, 8, 3}, {300, 40, 2}};
  for (const Case& c : cases) {
    if (kSmall) {
      if (c.columns <= 2) test_case<float>(c, randoms[kFloat32]);
      continue;
    }
    for (const unsigned seed : {1u, 4u}) {
      cuda_on_cpu::seed = seed;
      for_compiled_types([&](auto element) {
        using T = decltype(element);
        if (sizeof(T) > 2 || seed == 4) test_case<T>(c, randoms[Element<T>::dtype]);
      });
    }
  }
  test_blocks();
  if constexpr (KERNEL_COMPILES(kFloat32)) {
    test_overflow(1000, 1);
    if (!kSmall) test_overflow(100, 3), test_overflow(60, 40), test_repeats();
  }
}

int main() {
  test_scans_and_windows();
  return finish();
}
