// Attention with entmax-1.5 weights against loops in double: masks, strides, long and short supports, saved or not. Arrays
// have exactly the size that the kernels may touch, for the sanitizers.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "../instruction_sets/run.h"
#include "../references/entmax_reference.h"
#include "../references/numbers.h"

using namespace automl_ext;

template <class T>
struct Test {
  using C = typename Element<T>::Compute;
  const AttentionKernels::Functions& kernels;
  double worst = 0;

  struct Problem {
    AttentionSizes s = {};
    std::vector<T> q, k, v, grad;
    std::vector<uint8_t> flags;
    std::vector<C> added;
    std::vector<double> out, dq, dk, dv;  // expected

    bool sees(int64_t i, int64_t j) const {
      return (!s.causal || j <= i) && (s.mask != kFlags || flags[i * s.mask_row + j * s.mask_key]);
    }
    static double at(const std::vector<T>& x, int64_t row, int64_t i, int64_t j) {
      return Element<T>::decode(x[i * row + j]);
    }

    Problem(int64_t queries, int64_t keys, int64_t width, int64_t value_width, double factor, AttentionMask mask,
            bool causal, Random& random) {
      const bool tiles = has_tiles() && sizeof(C) == 4 && width >= 16;
      const int64_t q_row = width + 3, k_row = width, v_row = value_width + 1;
      s = {queries,     keys,  width, value_width, q_row, k_row,  v_row, value_width,
           value_width, width, keys,  1,           0.7,   causal, tiles, mask};
      q = encoded<T>(random.normals((queries - 1) * q_row + width, factor));
      k = encoded<T>(random.normals(keys * k_row));
      v = encoded<T>(random.normals((keys - 1) * v_row + value_width));
      grad = encoded<T>(random.normals(queries * value_width));
      for (int64_t i = 0; i < queries * keys; ++i) {
        if (mask == kFlags) flags.push_back(i < keys ? 0 : random.uniform() < 0.5);
        if (mask == kAdded) added.push_back(C(random.normal()));
      }
      expect();
    }
    void expect() {
      const int64_t d = s.width, e = s.value_width;
      out.assign(s.queries * e, 0), dq.assign(s.queries * d, 0);
      dk.assign(s.keys * d, 0), dv.assign(s.keys * e, 0);
      for (int64_t i = 0; i < s.queries; ++i) {
        std::vector<double> scores, weights, slopes;
        std::vector<int64_t> seen;
        for (int64_t j = 0; j < s.keys; ++j) {
          if (!sees(i, j)) continue;
          double dot = 0, slope = 0;
          for (int64_t c = 0; c < d; ++c) dot += at(q, s.q_row, i, c) * at(k, s.k_row, j, c);
          for (int64_t c = 0; c < e; ++c) slope += at(grad, s.grad_row, i, c) * at(v, s.v_row, j, c);
          scores.push_back(dot * s.scale + (s.mask == kAdded ? double(added[i * s.keys + j]) : 0));
          slopes.push_back(slope), seen.push_back(j);
        }
        if (seen.empty()) continue;
        for (const long double p : entmax_reference(scores, 2)) weights.push_back(double(p));
        const std::vector<long double> ds = entmax_backward_reference(slopes, weights, 2);
        for (size_t n = 0; n < seen.size(); ++n) {
          const int64_t j = seen[n];
          const double slope = double(ds[n]) * s.scale;
          for (int64_t c = 0; c < e; ++c) {
            out[i * e + c] += weights[n] * at(v, s.v_row, j, c);
            dv[j * e + c] += weights[n] * at(grad, s.grad_row, i, c);
          }
          for (int64_t c = 0; c < d; ++c) {
            dq[i * d + c] += slope * at(k, s.k_row, j, c);
            dk[j * d + c] += slope * at(q, s.q_row, i, c);
          }
        }
      }
    }
  };

  template <class X>
  void check(const char* what, const Problem& p, const std::vector<X>& got, const std::vector<double>& expected) {
    double largest = 1e-30, error = 0;
    for (const double x : expected) largest = std::fmax(largest, std::fabs(x));
    for (size_t i = 0; i < got.size(); ++i) {
      const double difference = std::fabs(Element<X>::decode(got[i]) - expected[i]);
      error = difference <= error ? error : difference;  // NaN is an error
    }
    const double bound = largest * (300 * Element<C>::epsilon + (sizeof(X) == 2 ? Element<X>::epsilon : 0));
    worst = std::fmax(worst, error / bound);
    CHECK(error <= bound, "%s %s, %lld queries, %lld keys, width %lld, mask %d, causal %d: error %g of %g",
          Element<T>::name, what, (long long)p.s.queries, (long long)p.s.keys, (long long)p.s.width, int(p.s.mask),
          int(p.s.causal), error, largest);
  }

  static std::vector<uint8_t> bytes(int64_t n) { return std::vector<uint8_t>(n + 64); }
  static void* aligned(std::vector<uint8_t>& x) {
    return x.data() + (64 - reinterpret_cast<uintptr_t>(x.data()) % 64) % 64;
  }

  void check(const Problem& p) {
    const AttentionSizes& s = p.s;
    const int64_t blocks = (s.queries + kAttentionBlock - 1) / kAttentionBlock;
    std::vector<uint8_t> packed = bytes(kernels.packed_bytes(s)), scratch = bytes(kernels.scratch_bytes(s, true));
    const bool few = s.queries < kAttentionFewQueries;
    if (!few) kernels.pack(s, p.k.data(), 0, s.keys, aligned(packed));
    std::vector<T> out(s.queries * s.value_width), dq(s.queries * s.width);
    std::vector<C> tau(s.queries), roots(s.queries * kAttentionSaved), dk(s.keys * s.width), dv(s.keys * s.value_width);
    std::vector<int32_t> counts(s.queries), places(s.queries * kAttentionSaved);
    AttentionHead head = {p.q.data(),
                          p.k.data(),
                          p.v.data(),
                          s.mask == kFlags ? (const void*)p.flags.data() : p.added.data(),
                          few ? nullptr : aligned(packed),
                          out.data(),
                          tau.data(),
                          counts.data(),
                          places.data(),
                          roots.data()};
    kernels.forward(s, head, 0, blocks, aligned(scratch));
    check("out", p, out, p.out);
    const AttentionGradients to = {p.grad.data(), dq.data(), dk.data(), dv.data()};
    for (const bool again : {false, true}) {
      if (again)  // as if nothing had been saved
        for (int32_t& count : counts) count = count < 0 ? count : -1 - count;
      std::fill(dk.begin(), dk.end(), C(0)), std::fill(dv.begin(), dv.end(), C(0));
      CHECK(kernels.backward(s, head, to, 0, blocks, aligned(scratch)), "saved places are refused");
      check("dq", p, dq, p.dq), check("dk", p, dk, p.dk), check("dv", p, dv, p.dv);
    }
    counts.assign(s.queries, 1), places.assign(places.size(), int32_t(s.keys));
    CHECK(!kernels.backward(s, head, to, 0, blocks, aligned(scratch)), "a place behind the keys is accepted");
  }

  void run() {
    Random random{5};
    for (const auto& [queries, keys, width, value_width] :
         {std::array<int64_t, 4>{1, 1, 1, 1}, {3, 70, 5, 9}, {49, 33, 8, 16}, {50, 130, 40, 3}, {97, 1061, 16, 33}})
      for (const double factor : {0.02, 0.5, 2.0})
        for (const AttentionMask mask : {kNoMask, kFlags, kAdded})
          for (const bool causal : {false, true})
            if (!causal || mask == kNoMask)
              check(Problem(queries, keys, width, value_width, factor, mask, causal, random));
    std::printf("%-8s error at most %.2f of its bound\n", Element<T>::name, worst);
  }
};

static void test(const InstructionSet&) {
  Test<double>{attention_kernels().of[kFloat64]}.run();
  Test<float>{attention_kernels().of[kFloat32]}.run();
  Test<bfloat16>{attention_kernels().of[kBFloat16]}.run();
  Test<float16>{attention_kernels().of[kFloat16]}.run();
}

int main() { return run(test); }
