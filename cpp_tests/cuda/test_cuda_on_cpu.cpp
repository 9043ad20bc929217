// Tests of the emulator that the other CUDA tests rely on. Correct kernels give correct results in every order of
// threads. Each kernel with a planted fault is reported by the detector meant for it; without the fault there is no
// report.
#include <sys/wait.h>

#include <cstdio>
#include <string>
#include <vector>

#include "../cuda_on_cpu/cuda_on_cpu.h"
#include "../cuda_on_cpu/faulty_kernels.cuh"
#include "../cuda_on_cpu/good_kernels.cuh"
#include "../references/check.h"

using namespace automl_ext;

namespace automl_ext {
static_assert(std::is_same_v<decltype(exp(1.f)), float> && std::is_same_v<decltype(log1p(1.f)), float> &&
              std::is_same_v<decltype(sqrt(1.f)), float> && std::is_same_v<decltype(fabs(1.f)), float>);
}

// ---- Correct kernels.

template <class T>
void test_sums(int64_t rows, int64_t n, unsigned threads) {
  std::vector<T> x(size_t(rows * n)), sums(static_cast<size_t>(rows));
  for (size_t i = 0; i < x.size(); ++i) x[i] = T(i % 7) - T(i / size_t(n));
  KERNEL_LAUNCH((sum_rows<T>), rows, threads, 0, nullptr, x.data(), sums.data(), n);
  for (int64_t row = 0; row < rows; ++row) {
    T sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[size_t(row * n + i)];
    CHECK(sums[size_t(row)] == sum, "row %d of %d, %u threads: %g for %g", int(row), int(n), threads,
          double(sums[size_t(row)]), double(sum));
  }
}

void test_shuffles() {
  for (const int width : {1, 2, 4, 8, 16, 32})
    for (const int by : {0, 1, 3, 5, 16, 31}) {
      std::vector<int> out(128);
      KERNEL_LAUNCH(shuffles, 1, 32, 0, nullptr, out.data(), width, by);
      for (int lane = 0; lane < 32; ++lane) {
        const int begin = lane / width * width, end = begin + width;
        const int index = begin + by % width;
        const int exclusive = (lane ^ by) < end ? lane ^ by : lane;
        const int down = lane + by < end ? lane + by : lane, up = lane - by >= begin ? lane - by : lane;
        const int expected[] = {index, exclusive, down, up};
        for (int form = 0; form < 4; ++form)
          CHECK(out[size_t(form * 32 + lane)] == 100 + expected[form], "form %d width %d by %d lane %d: %d", form,
                width, by, lane, out[size_t(form * 32 + lane)]);
      }
    }
}

template <class T>
void test_shuffle_type(T first) {
  std::vector<T> out(32);
  KERNEL_LAUNCH(shuffle_types<T>, 1, 32, 0, nullptr, out.data(), first);
  for (T x : out) CHECK(x == first, "%g for %g", double(x), double(first));
}

void test_votes() {
  std::vector<unsigned> out(64);
  KERNEL_LAUNCH(votes, 1, 32, 0, nullptr, out.data());
  for (unsigned lane = 0; lane < 32; ++lane) {
    const unsigned thirds = 0x24924924;  // lanes 2, 5, 8, …
    CHECK(out[lane] == (thirds & (lane < 16 ? 0xffff : 0xffff0000)), "lane %u: %x", lane, out[lane]);
    CHECK(out[32 + lane] == (lane < 16 ? 3 : 0), "lane %u: %u", lane, out[32 + lane]);
  }
}

void test_blocks() {
  const int blocks = 37, threads = 96, n = blocks * threads;
  std::vector<int> x(n), out(n);
  for (int i = 0; i < n; ++i) x[size_t(i)] = i;
  KERNEL_LAUNCH(reverse, dim3(blocks), dim3(threads), threads * sizeof(int), nullptr, x.data(), out.data());
  for (int i = 0; i < n; ++i) {
    const int start = i / threads * threads, expected = start + threads - 1 - (i - start);
    CHECK(out[size_t(i)] == expected, "%d: %d", i, out[size_t(i)]);
  }
  std::vector<int> counts(5, 0), parts(blocks), sum(1);
  for (int& v : x) v %= 5;
  KERNEL_LAUNCH(histogram, blocks, threads, 0, nullptr, x.data(), counts.data(), n - 1);
  for (int i = 0; i < 5; ++i) CHECK(counts[size_t(i)] == (n - 1 - i + 4) / 5, "%d: %d", i, counts[size_t(i)]);
  std::vector<unsigned> arrived(1);
  KERNEL_LAUNCH(sum_by_last_block, blocks, 32, 0, nullptr, parts.data(), arrived.data(), sum.data());
  CHECK(sum[0] == blocks * (blocks + 1) / 2, "%d", sum[0]);

  std::vector<int> seen(2 * 3 * 4 * 4 * 2 * 8);
  KERNEL_LAUNCH(places, dim3(2, 3, 4), dim3(4, 2, 8), 0, nullptr, seen.data());
  for (size_t i = 0; i < seen.size(); ++i) CHECK(seen[i] == int(i % 64) + 1, "%d: %d", int(i), seen[i]);
}

void test_arguments() {
  std::vector<int> out(1);
  int evaluated = 0;
  Big big{};
  big.bytes[1] = 7;
  KERNEL_LAUNCH((takes<Big>), 1, 64, 0, nullptr, (++evaluated, big), out.data());
  CHECK(out[0] == 7 && evaluated == 1, "%d, evaluated %d times", out[0], evaluated);
  CHECK(__umulhi(0xffffffffu, 0xffffffffu) == 0xfffffffeu && __popc(0xf0f0) == 8 && __clz(1) == 31 && __ffs(8) == 4,
        "integer functions");
  CHECK(__float_as_uint(1.f) == 0x3f800000 && __uint_as_float(0x40000000) == 2.f && __ldg(&out[0]) == 7, "bits");
}

void test_names() {
  const char* expected[][2] = {{"rows", "rows"},
                               {"(rows<float, 4>)", "rows"},
                               {"automl_ext::rows<automl_ext::half>", "rows"},
                               {"( automl_ext::rows )", "rows"}};
  for (const auto& [text, name] : expected)
    CHECK(cuda_on_cpu::kernel_name(text) == name, "%s: %s", text, cuda_on_cpu::kernel_name(text).c_str());
  CHECK(cuda_on_cpu::launched.names.count("sum_rows") == 1, "sum_rows was launched");
}

void test_correct_kernels() {
  for (cuda_on_cpu::seed = 0; cuda_on_cpu::seed < 4; ++cuda_on_cpu::seed) {
    for (const unsigned threads : {32u, 64u, 256u, 1024u}) {
      test_sums<double>(3, 1000, threads);
      test_sums<float>(2, 33, threads);
      test_sums<int>(5, 1, threads);
    }
    test_shuffles();
    test_votes();
    test_blocks();
  }
  test_shuffle_type(1.5f);
  test_shuffle_type(-1e300);
  test_shuffle_type<int64_t>(-(int64_t(1) << 50));
  test_shuffle_type<unsigned>(0xffffffff);
  test_arguments();
  test_names();
}

// ---- Faults for which the launch throws.

template <class F>
std::string fault(F f) {
  try {
    f();
  } catch (const cuda_on_cpu::Fault& e) {
    return e.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

#define CHECK_FAULT(kernel, threads, ...)                                                           \
  for (cuda_on_cpu::seed = 0; cuda_on_cpu::seed < 6; ++cuda_on_cpu::seed) {                         \
    std::vector<int> out(threads);                                                                  \
    std::string text = fault([&] { KERNEL_LAUNCH(kernel<false>, 1, threads, 0, nullptr, out.data()); }); \
    for (const char* part : {#kernel ", block 0, thread ", __VA_ARGS__})                            \
      CHECK(contains(text, part), "no '%s' in '%s'", part, text.c_str());                              \
    text = fault([&] { KERNEL_LAUNCH(kernel<true>, 1, threads, 0, nullptr, out.data()); });         \
    CHECK(text.empty(), "%s", text.c_str());                                                        \
    for (int one : out) CHECK(one == 1, "%d", one);                                                 \
  }

void test_faults() {
  CHECK_FAULT(divergent_barrier, 64, "__syncthreads at ", " conflicts with __syncthreads at ", "faulty_kernels.cuh:12 ",
              "faulty_kernels.cuh:14 ");
  CHECK_FAULT(returns_before_barrier, 64, "__syncthreads at ", " waits forever for thread 5, which has returned");
  CHECK_FAULT(shuffle_against_barrier, 32, "__shfl_xor_sync at ", "__syncthreads at ", " waits forever for thread ");
  CHECK_FAULT(divergent_shuffle, 32, "__shfl_xor_sync at ", " conflicts with __shfl_xor_sync at ");
  CHECK_FAULT(reads_absent_lane, 32, "__shfl_sync at ", " reads lane 16, which does not participate");
  CHECK_FAULT(outside_its_mask, 32, "__shfl_sync at ", " by lane 31, outside its mask");
  CHECK_FAULT(odd_width, 32, "__shfl_sync at ", " with width 12");
  CHECK_FAULT(large_static_shared, 32, "49156 bytes of static shared memory exceed the limit");
}

template <class T>
void test_unwritten_shared() {
  const unsigned blocks = 2;  // the second block must not see the data of the first
  std::vector<T> out(128 * blocks);
  KERNEL_LAUNCH(reads_unwritten_shared<T>, blocks, 64, 64 * sizeof(T), nullptr, out.data());
  for (size_t i = 0; i < out.size(); ++i) {
    const bool poison = out[i] != out[i] || out[i] == T(-1);
    CHECK(i % 128 < 32 ? out[i] == 1 : poison, "%d: %g", int(i), double(out[i]));
  }
}

// Without a barrier the results depend on the order of threads: one of two seeds shows it. In sanitizer builds the missing
// barrier ends the program.
template <class Faulty, class Correct>
void test_missing_barrier(const char* name, unsigned threads, Faulty faulty, Correct correct) {
  std::vector<int> expected(threads), out(threads);
  unsigned differing = 0;
  for (cuda_on_cpu::seed = 0; cuda_on_cpu::seed < 2; ++cuda_on_cpu::seed) {
    KERNEL_LAUNCH(correct, 1, threads, 0, nullptr, expected.data());
    KERNEL_LAUNCH(faulty, 1, threads, 0, nullptr, out.data());
    differing += out != expected;
  }
  CHECK(differing > 0, "%s: the right result in every order", name);
}

void test_missing_barriers() {
#if !defined(CUDA_ON_CPU_ASAN) && !defined(CUDA_ON_CPU_TSAN)
  const auto test = [](const char* name, unsigned threads, auto faulty, auto correct) {
    test_missing_barrier(name, threads, faulty, correct);
  };
  test("between warps", 256, no_barrier_between_warps<false>, no_barrier_between_warps<true>);
  test("before the next round", 256, no_barrier_before_next_round<false>, no_barrier_before_next_round<true>);
  test("in a warp", 32, no_syncwarp<false>, no_syncwarp<true>);
  test("of a warp for two", 64, syncwarp_between_warps<false>, syncwarp_between_warps<true>);
#endif
}

// ---- Launches that a device rejects.

void test_refusals() {
  std::vector<int> x(8 * 1024), out(8 * 1024);
  const auto launch = [&](auto grid, auto block, size_t shared) {
    return fault([&] { KERNEL_LAUNCH(reverse, grid, block, shared, nullptr, x.data(), out.data()); });
  };
  const auto refused = [&](const std::string& got, const char* part) {
    CHECK(contains(got, part), "no '%s' in '%s'", part, got.c_str());
  };
  refused(launch(1, 1025, 8192), "reverse: launch with a block of 1025 x 1 x 1 threads");
  refused(launch(1, dim3(32, 33), 8192), "a block of 32 x 33 x 1 threads");
  refused(launch(1, dim3(1, 1, 65), 8192), "a block of 1 x 1 x 65 threads");
  refused(launch(1, 0, 8192), "a block of 0 x 1 x 1 threads");
  refused(launch(0, 32, 8192), "a grid of 0 x 1 x 1 blocks");
  refused(launch(dim3(1, 65536), 32, 8192), "a grid of 1 x 65536 x 1 blocks");
  refused(launch(int64_t(1) << 31, 32, 8192), "a grid of 2147483648 x 1 x 1 blocks");
  refused(launch((int64_t(1) << 32) + 1, 32, 8192), "dim3 of 4294967297");
  refused(launch(-1, 32, 8192), "dim3 of -1");
  refused(launch(1, 1024, 48 * 1024 + 1), "49153 bytes of dynamic shared memory, where 49152 are allowed");
  CHECK(launch(1, 1024, 48 * 1024).empty(), "48 KiB are allowed without cudaFuncSetAttribute");
  const auto beside_static = [&](auto ok, size_t shared) {
    return fault([&] { KERNEL_LAUNCH(static_beside_dynamic<ok()>, 1, 32, shared, nullptr, out.data()); });
  };
  CHECK(beside_static(std::true_type(), 48 * 1024).empty(), "no static shared memory");
  refused(beside_static(std::false_type(), 48 * 1024), "128 bytes of static shared memory exceed the limit");
  CHECK(beside_static(std::false_type(), 48 * 1024 - 128).empty(), "48 KiB in total");

  int device = -1, most = 0, multiprocessors = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  CHECK(device == 0 && most == 232448 && multiprocessors == 4, "%d, %d", most, multiprocessors);
  const cudaFuncAttribute dynamic = cudaFuncAttributeMaxDynamicSharedMemorySize;
  CHECK(cudaFuncSetAttribute(reverse, dynamic, most + 1) != cudaSuccess, "more than the limit");
  CHECK(cudaFuncSetAttribute(reverse, dynamic, most) == cudaSuccess, "the limit");
  CHECK(launch(1, 1024, size_t(most)).empty(), "as much as cudaFuncSetAttribute allowed");
  refused(launch(1, 1024, size_t(most) + 1), "232449 bytes of dynamic shared memory, where 232448 are allowed");

  TooBig parameter{};
  const std::string text = fault([&] { KERNEL_LAUNCH(takes<TooBig>, 1, 32, 0, nullptr, parameter, out.data()); });
  refused(text, "takes: launch with 4112 bytes of parameters");
}

// ---- Faults that a sanitizer reports; each case runs in its own process, because a report ends the process.

enum class Sees { asan, tsan };

struct Case {
  const char* name;
  Sees sees;
  void (*run)(bool ok, int* out);
};

#define KERNEL_CASE(sees, kernel, grid, block)                                        \
  Case {                                                                              \
    #kernel "(" #block ")", sees, [](bool ok, int* out) {                             \
      if (ok) KERNEL_LAUNCH(kernel<true>, grid, block, 0, nullptr, out);              \
      else KERNEL_LAUNCH(kernel<false>, grid, block, 0, nullptr, out);                \
    }                                                                                 \
  }

const Case kCases[] = {
    KERNEL_CASE(Sees::asan, beyond_static_shared, 1, 64),
    {"fills_dynamic_shared", Sees::asan,
     [](bool ok, int* out) {
       KERNEL_LAUNCH(fills_dynamic_shared, 1, 64, 64 * sizeof(int) - (ok ? 0 : 1), nullptr, out);
     }},
    {"beyond_global", Sees::asan,
     [](bool ok, int*) {
       std::vector<int> out(100);
       if (ok) KERNEL_LAUNCH(beyond_global<true>, 4, 32, 0, nullptr, out.data(), 100);
       else KERNEL_LAUNCH(beyond_global<false>, 4, 32, 0, nullptr, out.data(), 100);
     }},
    KERNEL_CASE(Sees::tsan, no_barrier_between_warps, 1, 64),
    KERNEL_CASE(Sees::tsan, no_barrier_between_warps, 1, 1024),
    KERNEL_CASE(Sees::tsan, no_barrier_before_next_round, 1, 64),
    KERNEL_CASE(Sees::tsan, no_barrier_before_next_round, 1, 192),
    KERNEL_CASE(Sees::tsan, no_syncwarp, 1, 32),
    KERNEL_CASE(Sees::tsan, shuffle_for_syncwarp, 1, 32),
    KERNEL_CASE(Sees::tsan, syncwarp_between_warps, 1, 64),
    KERNEL_CASE(Sees::tsan, blocks_write_one_place, 2, 64),
    KERNEL_CASE(Sees::tsan, blocks_write_one_place, 2, 192),
    KERNEL_CASE(Sees::tsan, adds_without_atomic, 1, 64),
};

int run_case(const std::string& name, bool ok, unsigned seed) {
  cuda_on_cpu::seed = seed;
  std::vector<int> out(4096);
  for (const Case& c : kCases)
    if (c.name == name) return c.run(ok, out.data()), 0;
  return 2;
}

struct Outcome {
  bool success;
  std::string output;
};

Outcome run_program(const char* program, const Case& c, bool ok, unsigned seed) {
  const std::string command =
      std::string(program) + " '" + c.name + "' " + (ok ? "ok" : "faulty") + " " + std::to_string(seed) + " 2>&1";
  std::FILE* pipe = popen(command.c_str(), "r");
  std::string output;
  char piece[4096];
  for (size_t n; pipe && (n = std::fread(piece, 1, sizeof piece, pipe)) > 0;) output.append(piece, n);
  const int status = pipe ? pclose(pipe) : -1;
  return {WIFEXITED(status) && WEXITSTATUS(status) == 0, output};
}

void test_reports(const char* program) {
#if defined(CUDA_ON_CPU_ASAN)
  const Sees here = Sees::asan;
  const char* report = "AddressSanitizer: heap-buffer-overflow";
#elif defined(CUDA_ON_CPU_TSAN)
  const Sees here = Sees::tsan;
  const char* report = "ThreadSanitizer: data race";
#else
  std::printf("no sanitizer: skipped %d cases of %s\n", int(std::size(kCases)), program);
  return;
#endif
#if defined(CUDA_ON_CPU_ASAN) || defined(CUDA_ON_CPU_TSAN)
  for (const Case& c : kCases)
    for (unsigned seed = 0; seed < 2 && c.sees == here; ++seed) {
      const Outcome faulty = run_program(program, c, false, seed), correct = run_program(program, c, true, seed);
      CHECK(!faulty.success && contains(faulty.output, report) && contains(faulty.output, "faulty_kernels.cuh"),
            "%s, seed %u: %s",
            c.name, seed, faulty.output.c_str());
      CHECK(correct.success && correct.output.empty(), "%s, correct, seed %u: %s", c.name, seed,
            correct.output.c_str());
    }
#endif
}

int main(int arguments, char** argument) {
  if (arguments == 4) return run_case(argument[1], argument[2] == std::string("ok"), unsigned(std::atoi(argument[3])));
  test_correct_kernels();
  test_faults();
  cuda_on_cpu::seed = 0;
  test_unwritten_shared<float>();
  test_unwritten_shared<double>();
  test_unwritten_shared<int>();
  test_missing_barriers();
  test_refusals();
  test_reports(argument[0]);
  return finish();
}
