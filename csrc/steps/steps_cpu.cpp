// CPU entry functions of whole training steps.
#include <cmath>
#include <vector>

#include "../common/kernel_library.h"
#include "steps.h"

namespace automl_ext::steps_cpu {
namespace {

using Optional = const OptionalTensor&;

constexpr int64_t kChunk = 16384;      // elements whose sum is added first, for every number of threads
constexpr int64_t kSmall = 4'000'000;  // a step of fewer multiplications is faster on one thread
constexpr int64_t kBlocksAtOnce = 16;  // gradients in memory if several threads compute them

const StepKernelsOfType& kernels_of(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? steps_kernels().f64 : steps_kernels().f32;
}
template <class Call>
const StepKernelsOf<Call>& of_call(const StepKernelsOfType&);
template <>
const StepKernelsOf<PolicyStep>& of_call(const StepKernelsOfType& k) {
  return k.policy;
}
template <>
const StepKernelsOf<TdStep>& of_call(const StepKernelsOfType& k) {
  return k.td;
}

StepNetwork network(const char* op, const char* name, IntList sizes, int64_t offset, bool relu, bool layer_norm) {
  StepNetwork s{int(sizes.size()) - 1, {}, offset, 0, relu, layer_norm};
  CHECK_VALUE(s.layers >= 2 && s.layers <= kStepLayers, op, ": ", name, ": expected the inputs and the units of 2 to ",
              kStepLayers, " layers, got ", sizes);
  for (int i = 0; i <= s.layers; ++i) {
    CHECK_VALUE(sizes[i] >= 1 && sizes[i] < (int64_t(1) << 24), op, ": ", name, ": expected positive sizes, got ",
                sizes);
    s.sizes[i] = sizes[i];
  }
  for (int i = 0; i < s.layers; ++i) s.size += sizes[i + 1] * (sizes[i] + 1 + (layer_norm && i + 1 < s.layers ? 2 : 0));
  return s;
}

// The tensors of a call: all but a few have the dtype of the parameters.
struct Arguments {
  const char* op;
  const Tensor& parameters;
  std::vector<Tensor> given;  // keeps copies alive

  Arguments(const char* name, const Tensor& p) : op(name), parameters(p) {
    CHECK_TYPE(p.scalar_type() == ScalarType::Float || p.scalar_type() == ScalarType::Double, op,
               ": parameters: expected a float32 or float64 tensor, got ", p.scalar_type());
    CHECK_VALUE(p.device().is_cpu(), op, ": parameters: expected a tensor on cpu, got one on ", p.device());
    CHECK_VALUE(p.dim() == 1 && p.is_contiguous(), op, ": parameters: expected a contiguous vector, got shape ",
                p.sizes());
  }
  const Tensor& read(const char* name, const Tensor& x, ScalarType type, IntList sizes) {
    check_device(op, name, x, parameters);
    CHECK_TYPE(x.scalar_type() == type, op, ": ", name, ": expected a ", type, " tensor, got ", x.scalar_type());
    CHECK_VALUE(abi::equal(x.sizes(), sizes), op, ": ", name, ": expected shape ", sizes, ", got ", x.sizes());
    given.push_back(contiguous(x));
    return given.back();
  }
  const void* floats(const char* name, const Tensor& x, IntList sizes) {
    return read(name, x, parameters.scalar_type(), sizes).const_data_ptr();
  }
  const void* floats(const char* name, Optional x, IntList sizes) { return x ? floats(name, *x, sizes) : nullptr; }
  const uint8_t* flags(const char* name, const Tensor& x, IntList sizes) {
    return static_cast<const uint8_t*>(read(name, x, ScalarType::Bool, sizes).const_data_ptr());
  }
  const int64_t* integers(const char* name, const Tensor& x, IntList sizes) {
    return read(name, x, ScalarType::Long, sizes).const_data_ptr<int64_t>();
  }
};

// The vectors that a step changes.
struct Optimizer {
  const Tensor& parameters;
  Optional average;
  const Tensor &square, &step;
  double lr, beta1, beta2, eps, max_norm;

  void check(const char* op) const {
    const auto vector = [&](const char* name, const Tensor& x) {
      check_like(op, name, x, parameters);
      CHECK_VALUE(x.is_contiguous(), op, ": ", name, ": expected a contiguous vector");
    };
    if (average) vector("average", *average);
    vector("square", square);
    CHECK_VALUE(step.device().is_cpu() && step.dim() == 0 && step.scalar_type() == ScalarType::Float, op,
                ": step: expected a float32 tensor without dimensions on cpu, got ", step.scalar_type(), " of shape ",
                step.sizes());
    const auto apart = [&](const Tensor& x, const Tensor& y) {
      const auto *a = static_cast<const char*>(x.const_data_ptr()), *b = static_cast<const char*>(y.const_data_ptr());
      return a + x.numel() * x.element_size() <= b || b + y.numel() * y.element_size() <= a;
    };
    const bool all_apart =
        apart(parameters, square) && apart(parameters, step) && apart(square, step) &&
        (!average || (apart(*average, parameters) && apart(*average, square) && apart(*average, step)));
    CHECK_VALUE(all_apart, op, ": parameters, average, square, step: expected tensors that share no memory");
    CHECK_VALUE(std::isfinite(lr) && lr >= 0, op, ": lr: expected a finite number of at least 0, got ", lr);
    CHECK_VALUE(beta1 >= 0 && beta1 < 1, op, ": beta1: expected a number in [0, 1), got ", beta1);
    CHECK_VALUE(beta2 >= 0 && beta2 < 1, op, ": beta2: expected a number in [0, 1), got ", beta2);
    CHECK_VALUE(std::isfinite(eps) && eps >= 0, op, ": eps: expected a finite number of at least 0, got ", eps);
    CHECK_VALUE(max_norm > 0, op, ": max_norm: expected a positive number, got ", max_norm);
  }
};

template <class Body>
void in_chunks(int64_t n, bool threads, const Body& body) {
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) body(c, c * kChunk, std::min((c + 1) * kChunk, n));
  };
  const int64_t chunks = (n + kChunk - 1) / kChunk;
  threads ? parallel_for(0, chunks, 2, run) : run(0, chunks);
}

// xⁿ by squaring; glibc's pow would need a newer system.
double power(double x, double n) {
  double result = 1;
  for (auto left = n < 0x1p62 ? uint64_t(std::max(n, 0.0)) : uint64_t(1) << 62; left; left /= 2, x *= x)
    if (left % 2) result *= x;
  return result;
}

// Computes the gradient of a call with n rows, clips it and takes a step. Returns the norm before clipping. The sums are those
// of all rows. goes_on(): after the sums are known, whether to take the step; without it, nothing has changed.
template <class Call, int SUMS, class GoesOn>
double take_step(const Call& call, const Optimizer& o, int64_t multiplications, double (&sums)[SUMS],
                 const GoesOn& goes_on) {
  const auto& type = kernels_of(o.parameters);
  const auto& kernels = of_call<Call>(type);
  const int64_t bytes = o.parameters.element_size(), parameters = o.parameters.numel(), n = call.n;
  const int64_t blocks = (n + kStepBlock - 1) / kStepBlock;
  const bool threads = n * multiplications >= kSmall;
  const int64_t size = (kernels.gradient_size(call) + 15) / 16 * 16;
  const int64_t at_once = threads ? std::min(blocks, kBlocksAtOnce) : 1;
  const Scratch packed(kernels.packed_size(call) * bytes), gradients(at_once * size * bytes);
  char* const gradient = static_cast<char*>(gradients.get());
  std::vector<double> of_blocks(blocks * SUMS);
  kernels.pack(call, packed.get());
  const int64_t memory = kernels.memory_size(call) * bytes;
  const auto block = [&](int64_t b, void* own, void* to, bool add) {
    kernels.block(call, packed.get(), own, to, add, b * kStepBlock, std::min((b + 1) * kStepBlock, n),
                  of_blocks.data() + b * SUMS);
  };
  if (!threads) {
    const Scratch own(memory);
    for (int64_t b = 0; b < blocks; ++b) block(b, own.get(), gradient, b > 0);
  }
  for (int64_t done = 0; threads && done < blocks;) {
    const int64_t kept = done > 0;  // the first place has the sum so far
    const int64_t count = std::min(blocks - done, at_once - kept);
    parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      const Scratch own(memory);
      for (int64_t i = begin; i < end; ++i) block(done + i, own.get(), gradient + (kept + i) * size * bytes, false);
    });
    in_chunks(size, true, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = 1; i < kept + count; ++i)
        type.add(gradient + begin * bytes, gradient + (i * size + begin) * bytes, end - begin);
    });
    done += count;
  }
  std::fill(sums, sums + SUMS, 0.0);
  for (int64_t i = 0; i < blocks * SUMS; ++i) sums[i % SUMS] += of_blocks[i];
  kernels.finish(call, gradient);
  const int64_t chunks = (parameters + kChunk - 1) / kChunk;
  std::vector<double> squares(chunks);
  in_chunks(parameters, threads, [&](int64_t c, int64_t begin, int64_t end) {
    squares[c] = type.squares(gradient + begin * bytes, end - begin);
  });
  double total = 0;
  for (const double each : squares) total += each;
  const double norm = std::sqrt(total), limit = o.max_norm / (norm + 1e-6);
  if (!goes_on()) return norm;
  float* const step = o.step.mutable_data_ptr<float>();
  *step += 1;
  StepOptimizer x{o.parameters.mutable_data_ptr(),
                  o.average ? o.average->mutable_data_ptr() : nullptr,
                  o.square.mutable_data_ptr(),
                  gradient,
                  limit >= 1 ? 1 : limit,  // NaN stays
                  o.lr,
                  o.beta1,
                  o.beta2,
                  o.eps,
                  1,
                  1};
  if (o.average) x.corrected1 = 1 - power(o.beta1, *step), x.corrected2 = 1 - power(o.beta2, *step);
  in_chunks(parameters, threads, [&](int64_t, int64_t begin, int64_t end) { type.optimize(x, begin, end); });
  return norm;
}

Tensor metrics_of(std::initializer_list<double> all, const Tensor& like) {
  Tensor y = empty({int64_t(all.size())}, like);
  int64_t i = 0;
  for (const double x : all)
    if (like.scalar_type() == ScalarType::Double)
      y.mutable_data_ptr<double>()[i++] = x;
    else
      y.mutable_data_ptr<float>()[i++] = float(x);
  return y;
}

void check_actions(const char* op, const int64_t* actions, const int64_t* rows, int64_t n, int64_t count) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t a = actions[rows ? rows[i] : i];
    CHECK_VALUE(a >= 0 && a < count, op, ": actions: expected values in [0, ", count, "), got ", a);
  }
}

PolicyStep policy_of(const char* op, const Tensor& parameters, IntList actor, IntList critic, bool relu,
                     bool gaussian) {
  PolicyStep s{};
  s.gaussian = gaussian;
  s.actor = network(op, "actor", actor, 0, relu, false);
  const int64_t outputs = s.actor.sizes[s.actor.layers], inputs = actor[0];
  if (gaussian) s.actor.offset = outputs;
  s.critic = network(op, "critic", critic, s.actor.offset + s.actor.size, relu, false);
  CHECK_VALUE(critic[0] == inputs && critic[critic.size() - 1] == 1, op, ": critic: expected ", inputs,
              " inputs and 1 output, got ", critic);
  CHECK_VALUE(parameters.numel() == s.critic.offset + s.critic.size, op, ": parameters: expected ",
              s.critic.offset + s.critic.size, " numbers for the networks, got ", parameters.numel());
  s.parameters = parameters.const_data_ptr();
  return s;
}

std::tuple<Tensor, Tensor, Tensor> policy_act(const Tensor& parameters, const Tensor& observations, Optional masks,
                                              Optional noise, IntList actor, IntList critic, bool relu, bool gaussian) {
  const char* op = "policy_act";
  Arguments arguments(op, parameters);
  PolicyAct x{policy_of(op, parameters, actor, critic, relu, gaussian), nullptr, nullptr, nullptr, nullptr};
  PolicyStep& s = x.policy;
  const int64_t inputs = actor[0], outputs = s.actor.sizes[s.actor.layers];
  CHECK_VALUE(observations.dim() == 2, op, ": observations: expected shape [N, ", inputs, "], got ",
              observations.sizes());
  s.n = observations.size(0);
  s.observations = arguments.floats("observations", observations, {s.n, inputs});
  CHECK_VALUE(!(masks && gaussian), op, ": masks: expected none with a Gaussian policy");
  if (masks) s.masks = arguments.flags("masks", *masks, {s.n, outputs});
  x.noise = gaussian ? arguments.floats("noise", noise, {s.n, outputs}) : arguments.floats("noise", noise, {s.n});
  Tensor actions = gaussian ? empty({s.n, outputs}, parameters) : empty({s.n}, ScalarType::Long, parameters);
  Tensor log_probs = empty({s.n}, parameters), values = empty({s.n}, parameters);
  x.actions = actions.mutable_data_ptr();
  x.log_probs = log_probs.mutable_data_ptr(), x.values = values.mutable_data_ptr();
  const auto& type = kernels_of(parameters);
  const int64_t bytes = parameters.element_size(), blocks = (s.n + kStepBlock - 1) / kStepBlock;
  const Scratch packed(type.policy.packed_size(s) * bytes);
  type.policy.pack(s, packed.get());
  const auto run = [&](int64_t begin, int64_t end) {
    const Scratch own(type.policy.memory_size(s) * bytes);
    for (int64_t b = begin; b < end; ++b)
      type.act(x, packed.get(), own.get(), b * kStepBlock, std::min((b + 1) * kStepBlock, s.n));
  };
  s.n* parameters.numel() >= kSmall ? parallel_for(0, blocks, 1, run) : run(0, blocks);
  return {actions, log_probs, values};
}

Tensor policy_gradient_step(const Tensor& parameters, Optional average, const Tensor& square, const Tensor& step,
                            const Tensor& observations, const Tensor& actions, Optional masks, Optional old_log_probs,
                            Optional old_values, const Tensor& advantages, const Tensor& returns, Optional rows,
                            IntList actor, IntList critic, bool relu, bool normalize, double clip, double value_clip,
                            double vf_coef, double ent_coef, double max_norm, double max_kl, double lr, double beta1,
                            double beta2, double eps) {
  const char* op = "policy_gradient_step";
  Arguments arguments(op, parameters);
  const Optimizer optimizer{parameters, average, square, step, lr, beta1, beta2, eps, max_norm};
  optimizer.check(op);
  const bool gaussian = actions.scalar_type() == parameters.scalar_type();
  PolicyStep s = policy_of(op, parameters, actor, critic, relu, gaussian);
  const int64_t inputs = actor[0], outputs = s.actor.sizes[s.actor.layers];
  CHECK_VALUE(clip > 0, op, ": clip: expected a positive number, got ", clip);
  CHECK_VALUE(value_clip > 0, op, ": value_clip: expected a positive number, got ", value_clip);
  CHECK_VALUE(std::isfinite(vf_coef), op, ": vf_coef: expected a finite number, got ", vf_coef);
  CHECK_VALUE(std::isfinite(ent_coef), op, ": ent_coef: expected a finite number, got ", ent_coef);
  CHECK_VALUE(max_kl >= 0, op, ": max_kl: expected a number of at least 0, got ", max_kl);
  CHECK_VALUE(observations.dim() == 2, op, ": observations: expected shape [N, ", inputs, "], got ",
              observations.sizes());
  const int64_t all = observations.size(0);
  s.observations = arguments.floats("observations", observations, {all, inputs});
  s.advantages = arguments.floats("advantages", advantages, {all});
  s.returns = arguments.floats("returns", returns, {all});
  s.old_log_probs = arguments.floats("old_log_probs", old_log_probs, {all});
  s.old_values = arguments.floats("old_values", old_values, {all});
  if (masks) s.masks = arguments.flags("masks", *masks, {all, outputs});
  s.n = all;
  if (rows) {
    CHECK_VALUE(rows->dim() == 1, op, ": rows: expected a vector, got shape ", rows->sizes());
    s.n = rows->numel();
    s.rows = arguments.integers("rows", *rows, {s.n});
    for (int64_t i = 0; i < s.n; ++i)
      CHECK_INDEX(s.rows[i] >= 0 && s.rows[i] < all, op, ": rows: expected values in [0, ", all, "), got ", s.rows[i]);
  }
  CHECK_VALUE(s.n > 0, op, ": rows: expected at least one step, got none");
  if (s.gaussian) {
    CHECK_VALUE(!masks, op, ": masks: expected none with actions that are not integers");
    s.actions = arguments.floats("actions", actions, {all, outputs});
  } else {
    const int64_t* const each = arguments.integers("actions", actions, {all});
    check_actions(op, each, s.rows, s.n, outputs);
    s.actions = each;
  }
  s.clip = std::min(clip, 1e30), s.value_clip = std::min(value_clip, 1e30);
  s.vf_coef = vf_coef, s.ent_coef = ent_coef, s.scale = 1;
  if (normalize) {
    double deviation;
    kernels_of(parameters).moments(s.advantages, s.rows, s.n, &s.mean, &deviation);
    s.scale = 1 / (deviation + 1e-8);
  }
  double sums[kPolicySums];
  const double count = double(s.n);
  double kl = 0;
  const double norm = take_step(s, optimizer, 3 * parameters.numel(), sums, [&] {
    kl = sums[kKl] / count;
    if (parameters.scalar_type() == ScalarType::Float) kl = float(kl);  // as the caller sees it
    return !(kl > max_kl);
  });
  return metrics_of(
      {sums[kPolicyLoss] / count, sums[kValueLoss] / count, sums[kEntropy] / count, kl, sums[kClipped] / count, norm},
      parameters);
}

std::tuple<Tensor, Tensor> td_step(const Tensor& parameters, const Tensor& target, const Tensor& average,
                                   const Tensor& square, const Tensor& step, const Tensor& observations,
                                   const Tensor& actions, const Tensor& returns, const Tensor& next_observations,
                                   const Tensor& terminated, const Tensor& discounts, Optional weights, IntList sizes,
                                   bool relu, bool layer_norm, bool double_q, bool huber, double max_norm, double lr,
                                   double beta1, double beta2, double eps) {
  const char* op = "td_step";
  Arguments arguments(op, parameters);
  const OptionalTensor given = average;
  const Optimizer optimizer{parameters, given, square, step, lr, beta1, beta2, eps, max_norm};
  optimizer.check(op);
  TdStep s{};
  s.network = network(op, "sizes", sizes, 0, relu, layer_norm);
  const int64_t inputs = sizes[0];
  CHECK_VALUE(parameters.numel() == s.network.size, op, ": parameters: expected ", s.network.size,
              " numbers for the network, got ", parameters.numel());
  CHECK_VALUE(observations.dim() == 2 && observations.size(0) > 0, op, ": observations: expected shape [N, ", inputs,
              "] with N of at least 1, got ", observations.sizes());
  s.n = observations.size(0);
  s.parameters = parameters.const_data_ptr();
  s.target = arguments.floats("target", target, {parameters.numel()});
  s.observations = arguments.floats("observations", observations, {s.n, inputs});
  s.next_observations = arguments.floats("next_observations", next_observations, {s.n, inputs});
  s.returns = arguments.floats("returns", returns, {s.n});
  s.discounts = arguments.floats("discounts", discounts, {s.n});
  s.weights = arguments.floats("weights", weights, {s.n});
  s.terminated = arguments.flags("terminated", terminated, {s.n});
  s.actions = arguments.integers("actions", actions, {s.n});
  check_actions(op, s.actions, nullptr, s.n, s.network.sizes[s.network.layers]);
  s.double_q = double_q, s.huber = huber;
  Tensor errors = empty({s.n}, parameters);
  s.errors = errors.mutable_data_ptr();
  double sums[kTdSums];
  const double norm = take_step(s, optimizer, (4 + double_q) * parameters.numel(), sums, [] { return true; });
  return {metrics_of({sums[kTdLoss] / double(s.n), sums[kTdValue] / double(s.n), norm}, parameters), errors};
}

}  // namespace
}  // namespace automl_ext::steps_cpu

STABLE_TORCH_LIBRARY_FRAGMENT(automl_ext, m) {
  // automl_ext/ops/steps.py. Without average: RMSprop, whose decay is beta2.
  m.def(
      "policy_gradient_step(Tensor(a!) parameters, Tensor(b!)? average, Tensor(c!) square, Tensor(d!) step, "
      "Tensor observations, Tensor actions, Tensor? masks, Tensor? old_log_probs, Tensor? old_values, "
      "Tensor advantages, Tensor returns, Tensor? rows, int[] actor, int[] critic, bool relu, bool normalize, "
      "float clip, float value_clip, float vf_coef, float ent_coef, float max_norm, float max_kl, float lr, "
      "float beta1, float beta2, float eps) -> Tensor");
  // With gaussian, noise is normal [N, actions], else uniform [N]; without it, the most probable actions.
  m.def(
      "policy_act(Tensor parameters, Tensor observations, Tensor? masks, Tensor? noise, int[] actor, int[] critic, "
      "bool relu, bool gaussian) -> (Tensor actions, Tensor log_probs, Tensor values)");
  m.def(
      "td_step(Tensor(a!) parameters, Tensor target, Tensor(b!) average, Tensor(c!) square, Tensor(d!) step, "
      "Tensor observations, Tensor actions, Tensor returns, Tensor next_observations, Tensor terminated, "
      "Tensor discounts, Tensor? weights, int[] sizes, bool relu, bool layer_norm, bool double_q, bool huber, "
      "float max_norm, float lr, float beta1, float beta2, float eps) -> (Tensor metrics, Tensor errors)");
}

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  using namespace automl_ext;
  using namespace automl_ext::steps_cpu;
  implement<policy_gradient_step>(m, "policy_gradient_step", true);
  implement<policy_act>(m, "policy_act", true);
  implement<td_step>(m, "td_step", true);
}
