// The CUDA kernels of entmax-1.5 and sparsemax, run on the CPU, against sorting in long double.
#include "../cuda_on_cpu/cuda_on_cpu.h"

#include "../../csrc/entmax/entmax_cuda.cu"
#include "../references/check.h"
#include "../references/entmax_reference.h"
#include "../references/numbers.h"
#include "cuda_types.h"

using namespace automl_ext;

static const double infinity_ = std::numeric_limits<double>::infinity();
static const int64_t lengths[] = {1, 2, 3, 4, 5, 7, 8, 31, 32, 33, 100, 200, 500, 1000, 3001, 5000};

// Maximum error in ulp of the row's largest value; the half types only round the result. For gradients in ulp of the
// row's largest |s|·|g|; s(g − mean) may be twice as large.
template <class T>
static constexpr double max_ulps = sizeof(T) == 2 ? 0.51 : 4;
static constexpr double max_backward_ulps = 2;

// `count` rows: normal at increasing scales, with ties, with masks, all equal, fully masked, with NaN, with +inf.
static std::vector<double> rows_of(int64_t n, int64_t count, Random& random) {
  std::vector<double> x;
  for (int64_t row = 0; row < count; ++row) {
    std::vector<double> values = random.normals(n, std::pow(10, row % 4 - 1));
    const int kind = int(row % 8);
    for (int64_t i = 0; i < n; ++i) {
      if (kind == 2) values[i] = std::round(values[i]);
      if (kind == 3 && i % 3 && i + 1 < n) values[i] = -infinity_;
      if (kind == 4) values[i] = 0.7;
      if (kind == 5) values[i] = -infinity_;
    }
    if (kind == 6) values[n / 2] = std::nan("");
    if (kind == 7) values[n - 1] = infinity_;
    x.insert(x.end(), values.begin(), values.end());
  }
  return x;
}

template <class T>
static void check_forward(int power, const std::vector<double>& x, const std::vector<double>& p, int64_t n) {
  for (size_t begin = 0; begin < x.size(); begin += n) {
    const std::vector<double> row(x.begin() + begin, x.begin() + begin + n);
    bool invalid = false;
    double top = -infinity_;
    for (const double e : row) invalid |= std::isnan(e) || e == infinity_, top = std::fmax(top, e);
    const std::vector<long double> expected =
        invalid || top == -infinity_ ? std::vector<long double>(n, invalid ? NAN : 0) : entmax_reference(row, power);
    const double unit = invalid ? 1 : ulp<T>(double(*std::max_element(expected.begin(), expected.end())));
    for (int64_t i = 0; i < n; ++i) {
      const double got = p[begin + i], error = double(std::fabs(got - expected[i])) / unit;
      CHECK(invalid ? std::isnan(got) : error <= max_ulps<T>,
            "%s power %d, n = %lld, row %lld, i = %lld: got %.9g, expected %.9Lg", Element<T>::name, power,
            (long long)n, (long long)(begin / n), (long long)i, got, expected[i]);
      if (row[i] == -infinity_ && !invalid) CHECK(got == 0, "a masked element got %g", got);
    }
  }
}

template <class T>
static void check_backward(int power, const std::vector<double>& g, const std::vector<double>& p,
                           const std::vector<double>& dx, int64_t n) {
  for (size_t begin = 0; begin < g.size(); begin += n) {
    const auto row = [&](const std::vector<double>& v) { return std::vector<double>(&v[begin], &v[begin] + n); };
    std::vector<long double> expected = entmax_backward_reference(row(g), row(p), power);
    if (std::isnan(p[begin])) expected.assign(n, NAN);
    double largest_g = 0, largest_s = 0;
    for (int64_t i = 0; i < n; ++i) {
      largest_g = std::fmax(largest_g, std::fabs(g[begin + i]));
      largest_s = std::fmax(largest_s, power == 2 ? std::sqrt(p[begin + i]) : p[begin + i] > 0);
    }
    for (int64_t i = 0; i < n; ++i) {
      const double got = dx[begin + i];
      CHECK(std::isnan(expected[i])
                ? std::isnan(got)
                : double(std::fabs(got - expected[i])) <= max_backward_ulps * ulp<T>(largest_s * largest_g),
            "%s power %d backward, n = %lld, row %lld, i = %lld: got %.9g, expected %.9Lg", Element<T>::name, power,
            (long long)n, (long long)(begin / n), (long long)i, got, expected[i]);
    }
  }
}

// Calls launch(in, out). An offset of one element misaligns the rows to 16 bytes.
template <class T, class Launch>
static std::vector<double> run(const std::vector<double>& x, int64_t offset, const Launch& launch) {
  std::vector<T> in(x.size() + offset), out(x.size() + offset);
  const std::vector<T> values = encoded<T>(x);
  std::copy(values.begin(), values.end(), in.begin() + offset);
  launch(in.data() + offset, out.data() + offset);
  return decoded(std::vector<T>(out.begin() + offset, out.end()));
}

template <class T>
static void launch(int power, const T* in, T* out, int64_t count, int64_t n, int64_t inner = 1) {
  std::vector<char> workspace(entmax_workspace(Element<T>::dtype, count, n, inner));
  launch_entmax(power, Element<T>::dtype, in, out, count, n, workspace.data(), nullptr, inner);
}

template <class T>
static void check_launches(int power) {
  Random random{4};
  for (const int64_t n : lengths)
    for (const int64_t offset : {0, 1}) {
      const int64_t count = n > 1000 ? 3 : n > 100 ? 9 : 70;
      const std::vector<double> x = decoded(encoded<T>(rows_of(n, count, random)));
      std::vector<double> first;
      for (unsigned seed = 0; seed < cuda_on_cpu::orders(3); ++seed) {
        cuda_on_cpu::seed = seed;
        const std::vector<double> p = run<T>(x, offset, [&](const T* in, T* out) { launch(power, in, out, count, n); });
        if (seed == 0) check_forward<T>(power, x, first = p, n);
        CHECK(same_bits(p, first), "n = %lld: the result depends on the order of threads", (long long)n);
        if (n > 500) break;
      }
      const auto backward = [&](const std::vector<double>& g) {
        return run<T>(g, offset, [&](const T* in, T* out) {
          const std::vector<T> p = encoded<T>(first);
          launch_entmax_backward(power, Element<T>::dtype, in, p.data(), out, count, n, nullptr);
        });
      };
      std::vector<double> g = decoded(encoded<T>(random.normals(int64_t(x.size()))));
      check_backward<T>(power, g, first, backward(g), n);
      std::vector<double> clean = g;  // g is ignored outside the support
      for (size_t i = 0; i < g.size(); ++i)
        if (first[i] == 0) g[i] = i % 2 ? NAN : infinity_, clean[i] = 0;
      CHECK(same_bits(backward(g), backward(clean)), "n = %lld: g outside the support is used", (long long)n);
    }
}

// Block sizes that the launches do not choose, and fewer blocks than rows.
template <class T>
static void check_blocks(int power_) {
  Random random{5};
  const auto power_is = [&](auto power) {
    for (const int64_t n : {33, 1000})
      for (const int threads : {32, 96, 192, kRowThreads}) {
        const int64_t count = 5;
        const std::vector<double> x = decoded(encoded<T>(rows_of(n, count, random)));
        check_forward<T>(power(), x,
                         run<T>(x, 0,
                                [&](const T* in, T* out) {
                                  KERNEL_LAUNCH((entmax_long_rows<power(), T>), dim3(2), dim3(threads),
                                                n * sizeof(Compute<T>), nullptr, in, out, count, n);
                                }),
                         n);
        const std::vector<double> p = run<T>(x, 0, [&](const T* in, T* out) { launch(power(), in, out, count, n); });
        const std::vector<double> g = decoded(encoded<T>(random.normals(int64_t(x.size()))));
        const std::vector<T> y = encoded<T>(p);
        check_backward<T>(power(), g, p,
                          run<T>(g, 0,
                                 [&](const T* in, T* out) {
                                   KERNEL_LAUNCH((entmax_backward_long_rows<power(), T>), dim3(2), dim3(threads), 0,
                                                 nullptr, in, y.data(), out, count, n);
                                 }),
                          n);
      }
    const int64_t n = 31, count = 70;
    const std::vector<double> x = decoded(encoded<T>(rows_of(n, count, random)));
    for (const int threads : {32, 64, 128})
      check_forward<T>(power(), x,
                       run<T>(x, 0,
                              [&](const T* in, T* out) {
                                KERNEL_LAUNCH((entmax_short_rows<power(), T, 8, 4>), dim3(3), dim3(threads), 0, nullptr,
                                              in, out, count, n);
                              }),
                       n);
    const int64_t medium = 1028;
    const std::vector<double> rows = decoded(encoded<T>(rows_of(medium, 5, random)));
    check_forward<T>(power(), rows,
                     run<T>(rows, 0,
                            [&](const T* in, T* out) {
                              KERNEL_LAUNCH((entmax_medium_rows<power(), T, 128, 16>), dim3(2), dim3(128), 0, nullptr,
                                            in, out, 5, medium);
                            }),
                     medium);
  };
  power_ == 2 ? power_is(Int<2>()) : power_is(Int<1>());
}

// Rows in parts, in small blocks: several parts, the last of which is short, and lists that are too short for some parts.
template <class T>
static void check_parts(int power) {
  constexpr int threads = 64, part = threads * kHugeItems;
  Random random{10};
  for (const int64_t n : {100, part, part + 1, 3 * part - 4, 5 * part + 332})
    for (const int64_t offset : {0, 1}) {
      const int64_t count = 9;
      const std::vector<double> x = decoded(encoded<T>(rows_of(n, count, random)));
      std::vector<double> first;
      for (unsigned seed = 0; seed < cuda_on_cpu::orders(2); ++seed) {
        cuda_on_cpu::seed = seed;
        const std::vector<double> p = run<T>(x, offset, [&](const T* in, T* out) {
          const int64_t parts = huge_parts(n, threads);
          Carver sizes(nullptr);
          huge_rows(in, count, n, parts, threads, sizes);
          std::vector<char> workspace(sizes.bytes());
          power == 2 ? forward_huge<2, T, threads>(in, out, count, n, workspace.data(), nullptr)
                     : forward_huge<1, T, threads>(in, out, count, n, workspace.data(), nullptr);
        });
        if (seed == 0) check_forward<T>(power, x, first = p, n);
        CHECK(same_bits(p, first), "n = %lld: the result depends on the order of threads", (long long)n);
      }
    }
}

// Rows that do not fit shared memory, with more elements that can be in the support than fit it, and with few.
template <class T>
static void check_huge() {
  Random random{11};
  const size_t all = cuda_on_cpu::max_shared_bytes;
  cuda_on_cpu::max_shared_bytes = 48 * 1024;
  for (const int64_t n : {20000, 24001})
    for (const double scale : {1e-3, 1.0, 100.0}) {
      const std::vector<double> x = decoded(encoded<T>(random.normals(2 * n, scale)));
      check_forward<T>(2, x, run<T>(x, 0, [&](const T* in, T* out) { launch(2, in, out, 2, n); }), n);
    }
  cuda_on_cpu::max_shared_bytes = all;
}

// Columns: the same tests as for rows, with a last block that is not full.
template <class T>
static void check_columns(int power) {
  constexpr int warps = sizeof(T) == 8 ? 8 : 4;  // that the launch chooses for 100 categories
  Random random{9};
  for (const int64_t n : {1, 7, 8, 9, 32, 33, 100, 128, 129, 512})
    for (const int64_t inner : {32, 45}) {
      if (n > entmax_cuda_columns(Element<T>::dtype).longest) continue;
      const int64_t count = (n > 128 ? 1 : n > 32 ? 2 : 5) * inner;
      const std::vector<double> x = decoded(encoded<T>(rows_of(n, count, random)));
      std::vector<double> p;
      for (unsigned seed = 0; seed < cuda_on_cpu::orders(2); ++seed) {
        cuda_on_cpu::seed = seed;
        const std::vector<double> got =
            run<T>(transposed(x, n, inner), 0, [&](const T* in, T* out) { launch(power, in, out, count, n, inner); });
        if (seed == 0) check_forward<T>(power, x, p = transposed(got, n, inner, true), n);
        CHECK(same_bits(transposed(got, n, inner, true), p), "n = %lld: the result depends on the order of threads",
              (long long)n);
        if (n > 128) break;
      }
      if (n == 100 && power == 2) {  // one block for all columns
        const std::vector<double> got = run<T>(transposed(x, n, inner), 0, [&](const T* in, T* out) {
          KERNEL_LAUNCH((entmax_columns<2, T, warps, 128 / warps>), 1, 32 * warps, 0, nullptr, in, out, count, n,
                        inner);
        });
        CHECK(same_bits(transposed(got, n, inner, true), p), "one block gives another result");
      }
      const std::vector<T> y = encoded<T>(transposed(p, n, inner));
      const auto backward = [&](const std::vector<double>& g) {
        const std::vector<double> dx = run<T>(transposed(g, n, inner), 0, [&](const T* in, T* out) {
          launch_entmax_backward(power, Element<T>::dtype, in, y.data(), out, count, n, nullptr, inner);
        });
        return transposed(dx, n, inner, true);
      };
      std::vector<double> g = decoded(encoded<T>(random.normals(int64_t(x.size()))));
      check_backward<T>(power, g, p, backward(g), n);
      std::vector<double> clean = g;
      for (size_t i = 0; i < g.size(); ++i)
        if (p[i] == 0) g[i] = NAN, clean[i] = 0;
      CHECK(same_bits(backward(g), backward(clean)), "n = %lld: g outside the support is used", (long long)n);
    }
}

// p is much smaller than the rounding error of τ in float.
static void check_long_flat_rows() {
  Random random{6};
  for (const int64_t n : {2047, 4096, 100003})
    for (const double noise : {0.0, 1e-3}) {
      std::vector<double> x(n, 0.7);
      for (double& e : x) e += noise * random.normal();
      x = decoded(encoded<float>(x));
      for (const int power : {1, 2}) {
        const std::vector<double> p =
            run<float>(x, 0, [&](const float* in, float* out) { launch(power, in, out, 1, n); });
        check_forward<float>(power, x, p, n);
      }
    }
}

// τ is x of all elements but the first four: they get exactly 0.
template <class T>
static void check_threshold() {
  for (const int power : {1, 2})
    for (const int64_t n : {5, 8, 10, 40, 300, 5000}) {
      std::vector<double> x(n, power == 2 ? 0 : 0.75);
      std::fill_n(x.begin(), 4, 1.0);
      const std::vector<double> p = run<T>(x, 0, [&](const T* in, T* out) { launch(power, in, out, 1, n); });
      check_forward<T>(power, x, p, n);
      for (int64_t i = 4; i < n; ++i)
        CHECK(p[i] == 0, "%s power %d, n = %lld: p[%lld] = %g at the threshold", Element<T>::name, power, (long long)n,
              (long long)i, p[i]);
    }
}

// Long rows with few and many elements near the largest, on both sides of what one warp takes from a list.
template <class T>
static void check_candidates() {
  Random random{8};
  constexpr int most = kCandidates<Compute<T>>;
  for (const int64_t near : {1, 2, 3, 31, 33, most - 1, most, most + 1, 2 * most})
    for (const int power : {1, 2}) {
      std::vector<double> x = random.normals(5000, 0.1);
      for (int64_t i = 0; i < int64_t(x.size()); ++i)
        if (i % 2 || i / 2 >= near) x[i] -= 5;
      x = decoded(encoded<T>(x));
      check_forward<T>(power, x,
                       run<T>(x, 0, [&](const T* in, T* out) { launch(power, in, out, 1, int64_t(x.size())); }),
                       int64_t(x.size()));
    }
}

// Rows slightly smaller than 48 KiB, which exceed it together with static shared memory; the longest row that fits into
// shared memory, and one element more.
template <class T>
static void check_at_limits() {
  Random random{7};
  const int64_t size = sizeof(T), longest = shared_memory_limit() / size;
  for (const int64_t n : {48 * 1024 / size - 16, longest, longest + 1}) {
    const std::vector<double> x = decoded(encoded<T>(random.normals(n)));
    check_forward<T>(2, x, run<T>(x, 0, [&](const T* in, T* out) { launch(2, in, out, 1, n); }), n);
  }
}

// The attribute is set once, and after an error nothing is launched.
static void check_attribute() {
  const std::vector<double> x(20000, 0.5);
  const auto run_once = [&] {
    return run<float>(x, 0, [&](const float* in, float* out) { launch(1, in, out, 1, int64_t(x.size())); });
  };
  cuda_on_cpu::attribute_calls = 0;
  cuda_on_cpu::attributes_fail = true;
  CHECK(run_once()[0] == 0 && cuda_on_cpu::attribute_calls == 1, "launched after an error");
  cuda_on_cpu::attributes_fail = false;
  for (int repeat = 0; repeat < 3; ++repeat) CHECK(run_once()[0] > 0, "not launched");
  CHECK(cuda_on_cpu::attribute_calls == 2, "the attribute was set %d times", cuda_on_cpu::attribute_calls - 1);
}

template <class T>
static void test_type() {
  for (const int power : {1, 2}) {
    check_launches<T>(power);
    check_blocks<T>(power);
    check_parts<T>(power);
    check_columns<T>(power);
  }
}

int main() {
  if constexpr (KERNEL_COMPILES(kFloat32)) check_attribute();
#ifdef CUDA_ON_CPU_TSAN  // TSan is slow, and races do not depend on the type.
  test_type<float>();
#else
  for_compiled_types([](auto element) { test_type<decltype(element)>(); });
#endif
  if constexpr (KERNEL_COMPILES(kFloat32)) check_long_flat_rows();
  for_compiled_types([](auto element) {
    using T = decltype(element);
    check_threshold<T>();
    check_candidates<T>();
    if constexpr (sizeof(T) >= 4) check_at_limits<T>();
    check_huge<T>();
  });
  return finish();
}
