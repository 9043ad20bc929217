// CPU kernels of whole training steps of small perceptrons: forward and backward pass, loss, clipping and optimizer.
//
// Rows are processed in blocks of kStepBlock. A block's gradient is a sum over its rows in order; the gradients of blocks
// are added in order. So the result depends neither on the number of threads nor on which of them takes a block.
#pragma once
#include <cstdint>

#include "../instruction_sets/choice.h"

namespace automl_ext {

constexpr int64_t kStepBlock = 64;  // activations of a block stay in the first two caches
constexpr int kStepLayers = 8;      // the most that a perceptron may have

// A perceptron in a vector of parameters, from `offset` on: for each layer its weight [outputs, inputs] and its bias; with
// layer_norm, hidden layers then have the weight and the bias of the normalization of their outputs.
struct StepNetwork {
  int layers;                      // hidden ones and the last one, at least 2
  int64_t sizes[kStepLayers + 1];  // inputs, then the units of each layer
  int64_t offset, size;            // where its parameters begin, and their number
  bool relu, layer_norm;           // the activation is ReLU or tanh
};

// One step on rows of a rollout. Arrays have one entry per step of the rollout, of the type of the parameters unless
// another one stands here.
struct PolicyStep {
  StepNetwork actor, critic;
  bool gaussian;                       // else categorical
  const void* parameters;              // of a Gaussian, the first ones are the logarithms of its standard deviations
  const void *observations, *actions;  // [N, inputs]; int64 [N], or [N, outputs] if Gaussian
  const uint8_t* masks;                // [N, outputs]: 0 where an action is not possible; may be null
  const void *old_log_probs, *old_values, *advantages, *returns;  // the old ones may be null
  const int64_t* rows;                                            // [n]; null: all steps in order
  int64_t n;
  double mean, scale;  // advantages are (A − mean)·scale
  double clip, value_clip, vf_coef, ent_coef;
};
// Acting with the networks of a PolicyStep, which has no rows and nothing that only the loss reads.
struct PolicyAct {
  PolicyStep policy;
  const void* noise;  // uniform numbers [n], or normal ones [n, outputs] if Gaussian; null: the most probable actions
  void *actions, *log_probs, *values;  // as in PolicyStep
};
enum PolicySum : int { kPolicyLoss, kValueLoss, kEntropy, kKl, kClipped, kPolicySums };

// One step of Q-learning on a batch of n transitions.
struct TdStep {
  StepNetwork network;
  const void *parameters, *target;
  const void *observations, *next_observations, *returns, *discounts;
  const int64_t* actions;
  const uint8_t* terminated;
  const void* weights;  // may be null
  int64_t n;
  bool double_q, huber;
  void* errors;  // [n], |Q(s, a) − y|
};
enum TdSum : int { kTdLoss, kTdValue, kTdSums };

struct StepOptimizer {
  void *parameters, *average, *square;  // average: null for RMSprop
  const void* gradient;
  double scale;                                          // of the gradient
  double lr, beta1, beta2, eps, corrected1, corrected2;  // corrected: 1 − βᵗ
};

template <class Call>
struct StepKernelsOf {
  // Elements of: the packed weights, which all threads read; the memory of a thread; the gradient of a block.
  int64_t (*packed_size)(const Call&);
  int64_t (*memory_size)(const Call&);
  int64_t (*gradient_size)(const Call&);
  void (*pack)(const Call&, void* packed);
  // The rows [begin, end), at most kStepBlock. Sets the gradient, or adds to it, and sets the sums.
  void (*block)(const Call&, const void* packed, void* memory, void* gradient, bool add, int64_t begin, int64_t end,
                double* sums);
  // Brings a gradient in the order of the parameters.
  void (*finish)(const Call&, void* gradient);
};
struct StepKernelsOfType {
  StepKernelsOf<PolicyStep> policy;
  StepKernelsOf<TdStep> td;
  // The rows [begin, end), at most kStepBlock, with packed weights and memory as in `policy`.
  void (*act)(const PolicyAct&, const void* packed, void* memory, int64_t begin, int64_t end);
  void (*moments)(const void* x, const int64_t* rows, int64_t n, double* mean, double* deviation);
  void (*add)(void* to, const void* from, int64_t n);
  double (*squares)(const void* x, int64_t n);
  void (*optimize)(const StepOptimizer&, int64_t begin, int64_t end);
};
struct StepsKernels {
  StepKernelsOfType f32, f64;
};

DECLARE_KERNELS(StepsKernels, steps)

}  // namespace automl_ext
