// CPU entry functions of policy_gradient_loss. The forward pass computes the gradient, too.

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>

#include "../common/kernel_library.h"
#include "policy.h"

namespace automl_ext::loss_cpu {
namespace {

using Optional = const OptionalTensor&;
using Losses = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using Trained = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

constexpr const char* kLoss = "policy_gradient_loss";
constexpr int64_t kBlock = 4096;  // elements whose sums are added first, for every number of threads

Tensor scalar(double value, const Tensor& like) {
  Tensor y = empty({}, like.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float, like);
  if (y.scalar_type() == ScalarType::Double)
    *y.mutable_data_ptr<double>() = value;
  else
    *y.mutable_data_ptr<float>() = float(value);
  return to_dtype(y, like.scalar_type());
}

// of_log_probs and of_values are null if no gradient is needed.
Losses run(const Tensor& log_probs, const Tensor& entropy, const Tensor& values, const Tensor& advantages,
           const Tensor& returns, Optional old_log_probs, Optional old_values, Optional weights, double clip,
           double value_clip, double vf_coef, double ent_coef, void* of_log_probs, void* of_values) {
  const DType dtype = dtype_of(log_probs, kLoss, "log_probs");
  std::vector<Tensor> given;  // keeps copies alive
  const auto data = [&](const char* name, const Tensor& x) {
    check_like(kLoss, name, x, log_probs);
    given.push_back(contiguous(x));
    return given.back().const_data_ptr();
  };
  const auto maybe = [&](const char* name, Optional x) { return x ? data(name, *x) : nullptr; };
  const int64_t n = log_probs.numel();
  CHECK_VALUE(n || weights, kLoss, ": log_probs: expected at least one element, got shape ", log_probs.sizes());
  CHECK_VALUE(clip > 0, kLoss, ": clip: expected a positive number, got ", clip);
  CHECK_VALUE(value_clip > 0, kLoss, ": value_clip: expected a positive number, got ", value_clip);
  CHECK_VALUE(std::isfinite(vf_coef), kLoss, ": vf_coef: expected a finite number, got ", vf_coef);
  CHECK_VALUE(std::isfinite(ent_coef), kLoss, ": ent_coef: expected a finite number, got ", ent_coef);
  const PolicyLoss call{data("log_probs", log_probs),
                        data("entropy", entropy),
                        data("values", values),
                        data("advantages", advantages),
                        data("returns", returns),
                        maybe("old_log_probs", old_log_probs),
                        maybe("old_values", old_values),
                        maybe("weights", weights),
                        of_log_probs,
                        of_values,
                        1 / double(n),
                        std::min(clip, 1e30),
                        std::min(value_clip, 1e30),
                        vf_coef};
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> sums(3 * blocks);
  parallel_rows(blocks, 4 * kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block)
      policy_kernels().loss[dtype](call, sums.data() + 3 * block, block * kBlock, std::min((block + 1) * kBlock, n));
  });
  double total[3] = {};
  for (int64_t i = 0; i < 3 * blocks; ++i) total[i % 3] += sums[i];
  const double loss = vf_coef * total[1] - total[0] - (ent_coef == 0 ? 0 : ent_coef * total[2]);
  return {scalar(loss, log_probs), scalar(-total[0], log_probs), scalar(total[1], log_probs),
          scalar(total[2], log_probs)};
}

Losses loss(const Tensor& log_probs, const Tensor& entropy, const Tensor& values, const Tensor& advantages,
            const Tensor& returns, Optional old_log_probs, Optional old_values, Optional weights, double clip,
            double value_clip, double vf_coef, double ent_coef) {
  return run(log_probs, entropy, values, advantages, returns, old_log_probs, old_values, weights, clip, value_clip,
             vf_coef, ent_coef, nullptr, nullptr);
}

Trained trained(const Tensor& log_probs, const Tensor& entropy, const Tensor& values, const Tensor& advantages,
                const Tensor& returns, Optional old_log_probs, Optional old_values, Optional weights, double clip,
                double value_clip, double vf_coef, double ent_coef) {
  Tensor of_log_probs = empty(log_probs.sizes(), log_probs), of_values = empty(log_probs.sizes(), log_probs);
  auto [total, policy, value, mean] =
      run(log_probs, entropy, values, advantages, returns, old_log_probs, old_values, weights, clip, value_clip,
          vf_coef, ent_coef, of_log_probs.mutable_data_ptr(), of_values.mutable_data_ptr());
  return {total, policy, value, mean, of_log_probs, of_values};
}

}  // namespace
}  // namespace automl_ext::loss_cpu

STABLE_TORCH_LIBRARY_FRAGMENT(automl_ext, m) {
  // All tensors have one shape. Only log_probs, entropy and values have gradients, and only of the first result. The results
  // have no dims.
  m.def(
      "policy_gradient_loss(Tensor log_probs, Tensor entropy, Tensor values, Tensor advantages, Tensor returns, "
      "Tensor? old_log_probs, Tensor? old_values, Tensor? weights, float clip, float value_clip, float vf_coef, "
      "float ent_coef) -> (Tensor loss, Tensor policy_loss, Tensor value_loss, Tensor mean_entropy)");
  // Called if a gradient is needed. of_log_probs and of_values: the gradients of the loss.
  m.def(
      "_policy_gradient_loss_trained(Tensor log_probs, Tensor entropy, Tensor values, Tensor advantages, "
      "Tensor returns, Tensor? old_log_probs, Tensor? old_values, Tensor? weights, float clip, float value_clip, "
      "float vf_coef, float ent_coef) -> (Tensor loss, Tensor policy_loss, Tensor value_loss, Tensor mean_entropy, "
      "Tensor of_log_probs, Tensor of_values)");
}

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  using namespace automl_ext;
  using namespace automl_ext::loss_cpu;
  implement<loss>(m, "policy_gradient_loss", true);
  implement<trained>(m, "_policy_gradient_loss_trained", true);
}
