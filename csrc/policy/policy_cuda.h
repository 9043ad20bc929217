// CUDA launches of policy-gradient methods. The arrays are those of the CPU kernels (policy.h), on the device; none is empty,
// and the gradient has statistics.
#pragma once
#include "policy.h"

namespace automl_ext {

void launch_categorical(DType dtype, const CategoricalCall& x, void* stream);
void launch_categorical_backward(DType dtype, const CategoricalBackward& x, void* stream);

// The loss of n elements, and its terms: four numbers of the dtype. workspace: policy_loss_workspace(n) doubles.
int64_t policy_loss_workspace(int64_t n);
void launch_policy_loss(DType dtype, const PolicyLoss& x, int64_t n, double ent_coef, double* workspace,
                        void* const (&losses)[4], void* stream);

}  // namespace automl_ext
