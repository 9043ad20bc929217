#pragma once
#include <pybind11/pybind11.h>

namespace automl_ext {
// Adds categorical_log_probs, policy_gradient_loss and gumbel_argmax.
void bind_policy(pybind11::module_& m);
}  // namespace automl_ext
