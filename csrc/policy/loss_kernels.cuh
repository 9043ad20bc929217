// The loss of policy-gradient methods on CUDA, as loss_elements in policy_kernel.inc: blocks sum its terms and compute the
// gradients of elements; one more block adds the sums.
#pragma once
#include "../common/cuda/rows.cuh"
#include "policy.h"

namespace automl_ext {

constexpr int kLossThreads = 256, kLossItems = 8;  // of a block; elements of a thread

template <class C>
__device__ __forceinline__ C clamp(C x, C low, C high) {
  return x < low ? low : (x > high ? high : x);  // NaN stays NaN
}

// sums: [3, blocks]
template <class T>
__global__ void __launch_bounds__(kLossThreads) policy_loss(PolicyLoss x, int64_t n, double* sums) {
  using C = Compute<T>;
  const BlockTeam team;
  const C low = C(1 - x.clip), high = C(1 + x.clip), most = C(x.value_clip), weight = C(x.weight);
  const C vf = C(-2 * x.vf_coef);
  const int64_t blocks = (n + kLossThreads * kLossItems - 1) / (kLossThreads * kLossItems);
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    C objective = 0, error = 0, entropy = 0;
    for (int j = 0; j < kLossItems; ++j) {
      const int64_t i = (block * kLossItems + j) * kLossThreads + team.rank();
      if (i >= n) break;
      const auto at = [&](const void* p) { return load<T>(p, i); };
      const C w = x.weights ? at(x.weights) : weight, log_prob = at(x.log_probs), a = at(x.advantages);
      C gain = a * log_prob, slope = a;
      if (x.old_log_probs) {
        const C ratio = std::exp(log_prob - at(x.old_log_probs)), clipped = clamp(ratio, low, high) * a;
        gain = slope = ratio * a;
        slope = clipped < gain ? C(0) : slope;
        gain = clipped < gain ? clipped : gain;
      }
      const C value = at(x.values), target = at(x.returns);
      C miss = target - value, of_value = miss;
      if (x.old_values) {
        const C old = at(x.old_values), change = value - old, near = clamp(change, -most, most);
        const C other = target - (old + near);
        const bool is_worse = other * other > miss * miss;
        of_value = is_worse ? (change == near ? other : C(0)) : miss;
        miss = is_worse ? other : miss;
      }
      objective += w * gain;
      error += w * (miss * miss);
      entropy += w * at(x.entropy);
      if (!x.of_log_probs) continue;
      store<T>(x.of_log_probs, i, -(w * slope));
      store<T>(x.of_values, i, w * (vf * of_value));
    }
    double all[3] = {double(objective), double(error), double(entropy)};
    team.sum(all);
    if (team.rank() == 0)
      for (int k = 0; k < 3; ++k) sums[k * blocks + block] = all[k];
  }
}

// The loss, and −J, the error and the entropy, which have no dims.
struct PolicyLosses {
  void *loss, *policy, *value, *entropy;
};

template <class T>
__global__ void __launch_bounds__(kLossThreads)
    policy_loss_total(const double* sums, int64_t blocks, double vf_coef, double ent_coef, PolicyLosses out) {
  const BlockTeam team;
  double all[3] = {0, 0, 0};
  for (int64_t i = team.rank(); i < blocks; i += team.size())
    for (int k = 0; k < 3; ++k) all[k] += sums[k * blocks + i];
  team.sum(all);
  if (team.rank() != 0) return;
  using C = Compute<T>;
  store<T>(out.loss, 0, C(vf_coef * all[1] - all[0] - (ent_coef == 0 ? 0 : ent_coef * all[2])));
  store<T>(out.policy, 0, C(-all[0]));
  store<T>(out.value, 0, C(all[1]));
  store<T>(out.entropy, 0, C(all[2]));
}

}  // namespace automl_ext
