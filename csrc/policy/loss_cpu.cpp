// Registers the CPU kernel of policy_gradient_loss.
#include "loss_entry.h"

namespace automl_ext::loss_cpu {
namespace {

constexpr int64_t kBlock = 4096;  // elements whose sums are added first, for every number of threads

Tensor scalar(double value, const Tensor& like) {
  Tensor y = empty({}, like.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float, like);
  if (y.scalar_type() == ScalarType::Double)
    *y.mutable_data_ptr<double>() = value;
  else
    *y.mutable_data_ptr<float>() = float(value);
  return to_dtype(y, like.scalar_type());
}

struct Cpu {
  static constexpr bool kDirect = true;
  static loss_entry::Losses losses(DType dtype, const Tensor& like, const PolicyLoss& x, int64_t n, double ent_coef) {
    const int64_t blocks = (n + kBlock - 1) / kBlock;
    std::vector<double> sums(3 * blocks);
    parallel_rows(blocks, 4 * kBlock, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block)
        policy_kernels().loss[dtype](x, sums.data() + 3 * block, block * kBlock, std::min((block + 1) * kBlock, n));
    });
    double total[3] = {};
    for (int64_t i = 0; i < 3 * blocks; ++i) total[i % 3] += sums[i];
    const double loss = x.vf_coef * total[1] - total[0] - (ent_coef == 0 ? 0 : ent_coef * total[2]);
    return {scalar(loss, like), scalar(-total[0], like), scalar(total[1], like), scalar(total[2], like)};
  }
};

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

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CPU, m) { automl_ext::loss_entry::register_ops<automl_ext::loss_cpu::Cpu>(m); }
