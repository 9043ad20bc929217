// The random stream on CUDA: Philox4x32-10 words, bit-identical to those of noise.inc, and Gumbel noise from them.
#pragma once
#include "../common/cuda/rows.cuh"

namespace automl_ext {

// In one instruction; nvcc adds another to the product of converted numbers.
__device__ __forceinline__ uint64_t wide_product(uint32_t a, uint32_t b) {
#ifdef __CUDACC__
  uint64_t product;
  asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(a), "r"(b));
  return product;
#else
  return uint64_t(a) * b;
#endif
}

// The four words of a counter.
__device__ __forceinline__ void philox(uint64_t seed, uint64_t counter, uint32_t (&words)[4]) {
  uint32_t c0 = uint32_t(counter), c1 = uint32_t(counter >> 32), c2 = 0, c3 = 0;
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = wide_product(c0, 0xD2511F53u), product1 = wide_product(c2, 0xCD9E8D57u);
    c0 = uint32_t(product1 >> 32) ^ c1 ^ k0;
    c1 = uint32_t(product1);
    c2 = uint32_t(product0 >> 32) ^ c3 ^ k1;
    c3 = uint32_t(product0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

// log₂ of a positive normal number, with error at most 2⁻²²: absolute in [½, 2], relative outside.
#ifdef __CUDACC__
__device__ __forceinline__ float fast_log2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#else
inline float fast_log2(float x) { return std::log2(x); }
#endif

// The noise of x is g = −log(−log(1 − v)), v = (word + ½)·2⁻³², clamped below 1 in float. A product with a power of two is exact,
// so a fused multiply-add gives the same v. noise_log gives L = log₂(−log₂(1 − v)) in float and −g in double; x and L make
// add_noise(x, L) = x + g − kNoiseShift<C>, because adding one number to a whole row changes none of its results. The error is at
// most 7·10⁻⁷·max(1, |g|): the relative error of the inner logarithm (a polynomial for v < ⅕, else the logarithm of 1 − v,
// which is exact) and the error of the outer logarithm.
constexpr float kMinusLn2 = -0.693147180559945309f;
template <class C>
constexpr double kNoiseShift = sizeof(C) == 8 ? 0 : 0.366512920581664327;  // −log(log 2)
template <class C>
__device__ __forceinline__ C noise_log(uint32_t word) {
  if constexpr (sizeof(C) == 8) return std::log(-std::log1p(-(double(word) * 0x1p-32 + 0x1p-33)));
  const float v = fminf(float(word) * 0x1p-32f + 0x1p-33f, 1 - 0x1p-24f);
  float near = 0.45313581824302673f;  // −log₂(1 − v)/v on [0, ⅕]
  near = fmaf(near, v, 0.32895195484161377f);
  near = fmaf(near, v, 0.4832747280597687f);
  near = fmaf(near, v, 0.721286416053772f);
  near = fmaf(near, v, 1.4426952600479126f) * v;
  const float minus_far = fast_log2(1 - v);
  return fast_log2(fabsf(v < 0.2f ? near : minus_far));
}
__device__ __forceinline__ float add_noise(float x, float log) { return fmaf(kMinusLn2, log, x); }
__device__ __forceinline__ double add_noise(double x, double log) { return x - log; }
template <class C>
__device__ __forceinline__ C perturb(C x, uint32_t word) {
  return add_noise(x, noise_log<C>(word));
}

// A window is 64 elements of the stream. Element e uses word (e mod 64) div 16 of counter 16·(e div 64) + e mod 16: a thread
// generates four elements from one counter.
constexpr int kWindow = 64;

// Where threads that read the same element of adjacent rows find noise: shifted by one for every 32 elements, and once more for
// every 1024, so that rows of a power of two of elements are in different banks.
struct Skewed {
  __host__ __device__ __forceinline__ int operator()(int i) const { return i + (i >> 5) + (i >> 10); }
};
struct Straight {
  __device__ __forceinline__ int operator()(int i) const { return i; }
};

// Divided among threads 0 … size − 1 (a multiple of 16): logs[first mod 64 + i] = noise_log of element first + i for i < count.
// Whole windows are written: logs holds up to 2·63 more elements.
template <class C, class Place = Straight>
__device__ __forceinline__ void sample_noise(int rank, int size, uint64_t seed, int64_t first, int count, C* logs,
                                             const Place& place = {}) {
  const uint64_t first_counter = uint64_t(first) / kWindow * 16;
  const unsigned counters = unsigned(count + int(first % kWindow) + kWindow - 1) / kWindow * 16;
  for (unsigned u = rank; u < counters; u += size) {
    uint32_t words[4];
    philox(seed, first_counter + uint64_t(u), words);
#pragma unroll
    for (int q = 0; q < 4; ++q) logs[place(int(u / 16 * kWindow + u % 16 + 16 * q))] = noise_log<C>(words[q]);
  }
}

}  // namespace automl_ext
