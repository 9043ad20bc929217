// Registers the CUDA kernels of categorical_log_probs and policy_gradient_loss.
#include "policy_cuda.h"
#include "../common/cuda/device.h"
#include "loss_entry.h"
#include "policy_entry.h"

namespace automl_ext::policy_cuda {
namespace {

struct Categorical {
  static constexpr bool kDirect = false;
  static void categorical(DType dtype, const Tensor& logits, const CategoricalCall& x) {
    const CudaCall call(policy_entry::kCategorical, logits);
    launch_categorical(dtype, x, call.stream());
    call.check();
  }
  static void categorical_backward(DType dtype, const Tensor& logits, const CategoricalBackward& x) {
    const CudaCall call(policy_entry::kCategorical, logits);
    launch_categorical_backward(dtype, x, call.stream());
    call.check();
  }
};

struct Loss {
  static constexpr bool kDirect = false;
  static loss_entry::Losses losses(DType dtype, const Tensor& like, const PolicyLoss& x, int64_t n, double ent_coef) {
    const CudaCall call(loss_entry::kLoss, like);
    const auto number = [&] { return empty({}, like.scalar_type(), like); };
    Tensor loss = number(), policy = number(), value = number(), entropy = number();
    const Tensor workspace = empty({policy_loss_workspace(n)}, ScalarType::Double, like);
    launch_policy_loss(
        dtype, x, n, ent_coef, workspace.mutable_data_ptr<double>(),
        {loss.mutable_data_ptr(), policy.mutable_data_ptr(), value.mutable_data_ptr(), entropy.mutable_data_ptr()},
        call.stream());
    call.check();
    return {loss, policy, value, entropy};
  }
};

}  // namespace
}  // namespace automl_ext::policy_cuda

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CUDA, m) {
  using namespace automl_ext;
  policy_entry::register_ops<policy_cuda::Categorical>(m);
  loss_entry::register_ops<policy_cuda::Loss>(m);
}
