// The CUDA kernels of Gumbel sampling, run on the CPU: words of the stream, noise, samples, one-hots and indices.
#include <algorithm>

#include "cuda_gumbel_backward_part.h"
#include "cuda_gumbel_case.h"

using namespace automl_ext;

static const double inf = std::numeric_limits<double>::infinity();

static void test_words() {
  const uint64_t seeds[] = {0, 1, 0xffffffff, uint64_t(1) << 32, 0x299f31d0a4093822, ~uint64_t(0)};
  for (const uint64_t seed : seeds)
    for (const uint64_t counter : {0ull, 15ull, (1ull << 32) - 1, 1ull << 32, 1ull << 60}) {
      uint32_t words[4];
      philox(seed, counter, words);
      const auto expected =
          philox_reference({uint32_t(counter), uint32_t(counter >> 32), 0, 0}, {uint32_t(seed), uint32_t(seed >> 32)});
      for (int q = 0; q < 4; ++q)
        CHECK(words[q] == expected[q], "word %d: %08x, expected %08x", q, words[q], expected[q]);
    }
}

template <class C>
static void test_noise(double tolerance) {
  Random random{2};
  std::vector<uint32_t> words;
  for (uint32_t i = 0; i < 4096; ++i)
    words.insert(words.end(), {i, ~i, 0x80000000u + i, 0x80000000u - i, uint32_t(random.bits())});
  double worst = 0;
  for (const uint32_t word : words) {
    C v = C(word) * C(0x1p-32) + C(0x1p-33);
    if (std::is_same_v<C, float>) v = std::min(v, C(1 - 0x1p-24));
    const long double expected = -std::log(-std::log1p(-(long double)v));
    const long double got = perturb(C(0), word) + (long double)kNoiseShift<C>;
    const double error = double(std::fabs(got - expected)) / std::fmax(1, std::fabs(double(expected)));
    worst = std::fmax(worst, error);
    CHECK(error <= tolerance, "word %08x: got %.17Lg, expected %.17Lg", word, got, expected);
  }
  std::printf("%s noise: error at most %.3g·max(1, |g|)\n", Element<C>::name, worst);
}

// Each element has the noise of its own word, wherever the range begins and ends.
static void test_stream() {
  for (const int64_t first : {int64_t(0), int64_t(5), int64_t(63), int64_t(64), (int64_t(1) << 38) + 77})
    for (const int count : {1, 3, 59, 64, 65, 300}) {
      std::vector<float> logs(noise_size(count), -1);
      for (int rank = 0; rank < 32; ++rank) sample_noise(rank, 32, 9, first, count, logs.data());
      for (int i = 0; i < count; ++i)
        CHECK(logs[first % 64 + i] == noise_log<float>(word_of_element(9, uint64_t(first + i))),
              "first %lld, element %d of %d: noise %g", (long long)first, i, count, logs[first % 64 + i]);
    }
}

static constexpr size_t kAllShared = 232448, kLittleShared = 40960;

template <class T>
struct Outputs {
  std::vector<T> soft, one_hot;
  std::vector<int64_t> index;
  Outputs(const Case& c, size_t offset) : soft(c.n * c.count() + offset), one_hot(soft.size()), index(c.count(), -1) {}
  bool operator==(const Outputs& other) const {
    return same_bits(soft, other.soft) && same_bits(one_hot, other.one_hot) && index == other.index;
  }
};

template <class T>
struct Sampler {
  using C = typename Element<T>::Compute;
  bool entmax;
  double worst = 0;

  // All pointers are `offset` elements after a 16-byte boundary.
  Outputs<T> run(const Case& c, const std::vector<T>& x, unsigned order = 1, size_t offset = 0,
                 bool hard = true) const {
    cuda_on_cpu::seed = order;
    Outputs<T> out(c, offset);
    std::vector<T> in = transposed(x, c.n, c.inner);
    in.insert(in.begin(), offset, T());
    const OnDevice device(c);
    std::vector<char> workspace(gumbel_workspace(Element<T>::dtype, device.rows, out.soft.data()));
    launch_gumbel(entmax, Element<T>::dtype, device.rows, in.data() + offset, out.soft.data() + offset,
                  hard ? out.one_hot.data() + offset : nullptr, hard ? out.index.data() : nullptr, workspace.data(),
                  nullptr);
    out.soft.erase(out.soft.begin(), out.soft.begin() + offset);
    out.one_hot.erase(out.one_hot.begin(), out.one_hot.begin() + offset);
    out.soft = transposed(out.soft, c.n, c.inner, true), out.one_hot = transposed(out.one_hot, c.n, c.inner, true);
    return out;
  }

  std::vector<long double> expected(const std::vector<C>& z, C tau) const {
    const long double top = *std::max_element(z.begin(), z.end());
    if (entmax) {  // z − top is exact near the maximum; rounding z/τ to double is not
      std::vector<double> scaled(z.size());
      for (size_t i = 0; i < z.size(); ++i) scaled[i] = double((z[i] - top) / tau);
      return entmax_reference(scaled, 2);
    }
    std::vector<long double> p(z.size());
    long double total = 0;
    for (size_t i = 0; i < z.size(); ++i) total += p[i] = std::exp((z[i] - top) / tau);
    for (long double& e : p) e /= total;
    return p;
  }

  void check(const Case& c, double masked) {
    Random random{10};
    std::vector<double> logits = random.normals(c.n * c.count());
    for (int64_t i = 0; i < c.n * c.count(); ++i)
      if (i % c.n && random.uniform() < masked) logits[i] = -inf;
    const std::vector<T> x = encoded<T>(logits);
    const Outputs<T> out = run(c, x);
    for (int64_t row = 0; row < c.count(); ++row) check_row(c, row, x, out);
    for (unsigned order = 2; order <= cuda_on_cpu::orders(3); ++order)
      CHECK(run(c, x, order) == out, "n = %lld: the result depends on the order of threads", (long long)c.n);
    CHECK(same_bits(run(c, x, 1, 0, false).soft, out.soft), "n = %lld: soft alone differs", (long long)c.n);
    std::vector<int64_t> index(c.count(), -1);
    const OnDevice device(c);
    std::vector<char> workspace(gumbel_workspace(Element<T>::dtype, device.rows, nullptr));
    launch_gumbel(entmax, Element<T>::dtype, device.rows, transposed(x, c.n, c.inner).data(), nullptr, nullptr,
                  index.data(), workspace.data(), nullptr);
    CHECK(index == out.index, "n = %lld: argmax alone differs", (long long)c.n);
    const Outputs<T> misaligned = run(c, x, 1, 1);
    CHECK(misaligned.index == out.index, "n = %lld: misaligned index", (long long)c.n);
    for (int64_t row = 0; row < c.count(); ++row) check_row(c, row, x, misaligned);
  }

  void check_row(const Case& c, int64_t row, const std::vector<T>& x, const Outputs<T>& out) {
    std::vector<C> z(c.n);
    for (int64_t i = 0; i < c.n; ++i)
      z[i] = perturb(C(Element<T>::decode(x[row * c.n + i])),
                     word_of_element(c.seed(row), uint64_t(row % c.rows_per_group * c.n + i)));
    const int64_t top = std::max_element(z.begin(), z.end()) - z.begin();
    CHECK(out.index[row] == top, "n = %lld, row %lld: index %lld, expected %lld", (long long)c.n, (long long)row,
          (long long)out.index[row], (long long)top);
    const std::vector<long double> p = expected(z, C(c.tau(row)));
    const double unit = ulp<T>(double(p[top]));
    for (int64_t i = 0; i < c.n; ++i) {
      const double got = Element<T>::decode(out.soft[row * c.n + i]), error = double(std::fabs(got - p[i])) / unit;
      worst = std::fmax(worst, error);
      CHECK(error <= max_ulps<T> && got >= 0, "%s %s n = %lld, row %lld, %lld: got %.17g, expected %.17Lg, %.2f ulp",
            Element<T>::name, entmax ? "entmax" : "softmax", (long long)c.n, (long long)row, (long long)i, got, p[i],
            error);
      const double chosen = Element<T>::decode(out.one_hot[row * c.n + i]);
      CHECK(chosen == (i == top), "n = %lld, row %lld, %lld: one_hot %g", (long long)c.n, (long long)row, (long long)i,
            chosen);
      if (z[i] == -inf) CHECK(got == 0, "a masked element got %g", got);
    }
  }

  // Rows with NaN, with infinities, of equal logits, and invalid temperatures.
  void check_special_rows(int64_t n, int64_t inner = 1) const {
    std::vector<double> logits(6 * n, 0.5);
    logits[1 * n + n / 2] = std::nan("");
    logits[5 * n - 1] = inf;
    for (int64_t i = 0; i < n; ++i) logits[3 * n + i] = -inf;
    const Outputs<T> out = run({n, 2, 3, {5}, {1.0}, kDTypes, inner}, encoded<T>(logits));
    const std::vector<double> soft = decoded(out.soft), one_hot = decoded(out.one_hot);
    CHECK(out.index[1] == n / 2, "NaN at %lld: index %lld", (long long)n / 2, (long long)out.index[1]);
    CHECK(out.index[3] == 0, "all -inf: index %lld", (long long)out.index[3]);
    CHECK(out.index[4] == n - 1, "inf at %lld: index %lld", (long long)n - 1, (long long)out.index[4]);
    for (int64_t i = 0; i < n; ++i) {
      for (const int64_t row : {1, 4})
        CHECK(std::isnan(soft[row * n + i]) && std::isnan(one_hot[row * n + i]), "row %lld: %g, %g", (long long)row,
              soft[row * n + i], one_hot[row * n + i]);
      const double s = soft[3 * n + i], h = one_hot[3 * n + i];
      CHECK(entmax ? s == 0 && h == 0 : std::isnan(s) && std::isnan(h), "all -inf: %g, %g", s, h);
      for (const int64_t row : {0, 2, 5})
        CHECK(std::isfinite(soft[row * n + i]) && std::isfinite(one_hot[row * n + i]), "a valid row became invalid");
    }
    for (const double tau : {0.0, -1.0, std::nan("")}) {
      const Case c{n, 1, 2, {5}, {1.0, tau}, kFloat32, inner};
      const Outputs<T> bad = run(c, encoded<T>(std::vector<double>(2 * n, 0.5)));
      const std::vector<double> values = decoded(bad.soft), hard = decoded(bad.one_hot);
      for (int64_t i = 0; i < n; ++i)
        CHECK(!std::isnan(values[i]) && std::isnan(values[n + i]) && std::isnan(hard[n + i]), "tau %g: got %g, %g", tau,
              values[n + i], hard[n + i]);
    }
  }

  // The smallest τ gives the argmax, the largest τ a uniform distribution over the elements that are not masked.
  void check_extreme_taus(int64_t n, int64_t inner = 1) const {
    std::vector<double> logits(2 * n, 0.5);
    logits[n - 1] = logits[2 * n - 1] = -inf;
    const double least = sizeof(C) == 8 ? 5e-324 : 1.4e-45, most = sizeof(C) == 8 ? 1.7e308 : 3.4e38;
    const Outputs<T> out = run({n, 1, 2, {5}, {least, most}, kFloat64, inner}, encoded<T>(logits));
    const std::vector<double> soft = decoded(out.soft), one_hot = decoded(out.one_hot);
    for (int64_t i = 0; i < n; ++i) {
      CHECK(soft[i] == one_hot[i], "tau %g: %g", least, soft[i]);
      const double mean = i == n - 1 ? 0 : 1.0 / (n - 1);
      CHECK(std::fabs(soft[n + i] - mean) <= max_ulps<T> * ulp<T>(mean), "tau %g: %g", most, soft[n + i]);
    }
  }
};

// Several passes over a tile, several tiles and rows per block. The launches do this only for much larger sizes.
template <class T, int lanes, int items>
static void test_few_blocks(int64_t n) {
  const Case c{n, 3 * (kShortRowThreads / lanes) + 1, 3, {1, 2, 3}, {1.0, 0.5, 2.0}, kFloat32};
  const std::vector<T> x = encoded<T>(Random{12}.normals(n * c.count()));
  const Outputs<T> expected = Sampler<T>{true}.run(c, x);
  const OnDevice device(c);
  const RowTiles tiles{6, 2, 2 * (kShortRowThreads / lanes)};
  for (const int threads : {32, 64, kShortRowThreads}) {
    Outputs<T> out(c, 0);
    KERNEL_LAUNCH((gumbel_short_rows<true, T, lanes, items>), 2, threads,
                  size_t(noise_size(tiles.rows * n)) * sizeof(Compute<T>), nullptr, device.rows, tiles, x.data(),
                  (GumbelOutputs<T>{out.soft.data(), out.one_hot.data(), out.index.data()}));
    CHECK(out == expected, "n = %lld: two blocks of %d threads give another result", (long long)n, threads);
  }
}

// One block for all tiles of columns.
template <class T>
static void test_few_blocks_columns() {
  const Case c{100, 96, 2, {1, 2}, {1.0, 0.5}, kFloat32, 48};
  const std::vector<T> x = encoded<T>(Random{15}.normals(c.n * c.count()));
  const Outputs<T> expected = Sampler<T>{true}.run(c, x);
  Outputs<T> out(c, 0);
  const OnDevice device(c);
  KERNEL_LAUNCH((gumbel_columns<true, T, 8, 16>), 1, 256,
                size_t(Skewed()(int(noise_size(32 * c.n))) + 1) * sizeof(Compute<T>), nullptr, device.rows,
                (RowTiles{6, 3, 32}), transposed(x, c.n, c.inner).data(),
                (GumbelOutputs<T>{out.soft.data(), out.one_hot.data(), out.index.data()}));
  out.soft = transposed(out.soft, c.n, c.inner, true), out.one_hot = transposed(out.one_hot, c.n, c.inner, true);
  CHECK(out == expected, "one block gives another result");
}

template <class T>
static void test_few_blocks_long(int64_t n) {
  const Case c{n, 2, 2, {1, 2}, {1.0, 0.5}, kFloat32};
  const std::vector<T> x = encoded<T>(Random{13}.normals(n * c.count()));
  const OnDevice device(c);
  const Outputs<T> expected = Sampler<T>{true}.run(c, x);
  Outputs<T> out(c, 0);
  const GumbelOutputs<T> pointers{out.soft.data(), out.one_hot.data(), out.index.data()};
  KERNEL_LAUNCH((gumbel_long_rows<true, T>), 1, 256, size_t(noise_size(n)) * sizeof(Compute<T>), nullptr, device.rows,
                x.data(), pointers);
  CHECK(out == expected, "n = %lld: one block gives another result", (long long)n);
}

// Block sizes that the launches do not choose. TSan detects all races only in small blocks.
template <bool entmax, class T>
static void test_blocks() {
  Sampler<T> sampler{entmax};
  for (const int64_t n : {33, 1000})
    for (const int threads : {32, 96, 192, kRowThreads}) {
      const Case c{n, 3, 2, {1, 2}, {1.0, 0.5}, kFloat32};
      const std::vector<T> x = encoded<T>(Random{14}.normals(n * c.count()));
      const OnDevice device(c);
      Outputs<T> out(c, 0);
      const GumbelOutputs<T> pointers{out.soft.data(), out.one_hot.data(), out.index.data()};
      KERNEL_LAUNCH((gumbel_long_rows<entmax, T>), 2, threads, size_t(noise_size(n)) * sizeof(Compute<T>), nullptr,
                    device.rows, x.data(), pointers);
      for (int64_t row = 0; row < c.count(); ++row) sampler.check_row(c, row, x, out);
    }
}

// Rows in parts, in small blocks, with rows and groups that begin inside a window of the stream; more parts than blocks of the
// last launch; flat rows, for whose candidates the lists are too short.
template <bool entmax, class T>
static void test_parts() {
  constexpr int threads = 64, part = threads * kHugeItems;
  Sampler<T> sampler{entmax};
  for (const int64_t n : {40, part - 63, part, 3 * part + 1, 9 * part + 100})
    for (const double scale : {1.0, 1e-3}) {
      const Case c{n, 3, 2, {1, -2}, {scale < 1 ? 1e3 : 1.0, 0.5}, kFloat32};
      std::vector<double> logits = Random{16}.normals(n * c.count(), scale);
      for (size_t i = 0; i < logits.size(); ++i)
        if (i % 5 == 1 || i / n == 4) logits[i] = i % n ? -inf : 0.5;  // and a row with one category, parts with none
      const std::vector<T> x = encoded<T>(logits);
      Outputs<T> first(c, 0);
      for (unsigned order = 0; order < cuda_on_cpu::orders(2); ++order) {
        cuda_on_cpu::seed = order;
        const OnDevice device(c);
        Outputs<T> out(c, 0);
        const GumbelOutputs<T> pointers{out.soft.data(), out.one_hot.data(), out.index.data()};
        Carver sizes(nullptr);
        huge_gumbel_rows<T, threads>(device.rows, out.soft.data(), sizes);
        std::vector<char> workspace(sizes.bytes());
        sample_huge<entmax, T, threads>(device.rows, x.data(), pointers, workspace.data(), nullptr);
        for (int64_t row = 0; row < c.count(); ++row) sampler.check_row(c, row, x, out);
        if (order == 0) first = out;
        CHECK(out == first, "n = %lld: the result depends on the order of threads", (long long)n);
      }
    }
}

template <class T>
static void test_type() {
  for (const bool entmax : {false, true}) {
    Sampler<T> sampler{entmax};
    for (const Case& c : cases()) sampler.check(c, c.n % 2 ? 0.3 : 0.0);
    for (const int64_t n : {2, 7, 33, 200, 3000}) {
      sampler.check_special_rows(n);
      sampler.check_extreme_taus(n);
    }
    cuda_on_cpu::max_shared_bytes = kLittleShared;  // rows in two parts
    sampler.check({9001, 2, 2, {3, 4}, {1.0, 0.5}, kFloat32}, 0.3);
    sampler.check_special_rows(9001);
    sampler.check_extreme_taus(9001);
    cuda_on_cpu::max_shared_bytes = kAllShared;
    for (const Case& c : column_cases()) sampler.check(c, c.n % 2 ? 0.3 : 0.0);
    for (const int64_t n : {7, 33}) {
      sampler.check_special_rows(n, 2);
      sampler.check_extreme_taus(n, 2);
    }
    std::printf("%-8s %s: error at most %.3f ulp of the row's largest value\n", Element<T>::name,
                entmax ? "entmax " : "softmax", sampler.worst);
  }
  test_few_blocks<T, 1, 4>(3);
  test_few_blocks<T, 1, 8>(8);
  test_few_blocks<T, 8, 4>(17);
  test_few_blocks<T, 32, 4>(40);
  test_few_blocks<T, 32, 0>(136);
  test_few_blocks_columns<T>();
  test_few_blocks_long<T>(1100);
  test_blocks<false, T>();
  test_blocks<true, T>();
  test_parts<false, T>();
  test_parts<true, T>();
}

static void test_sampling() {
  test_words();
  test_noise<float>(5e-7);
  test_noise<double>(1e-15);
  test_stream();
  for_compiled_types([](auto element) { test_type<decltype(element)>(); });
}

int main(int argc, char** argv) {
  return run_part(argc, argv, {{"gumbel", test_sampling}, {"gumbel_backward", gumbel_backward_part::test}});
}
