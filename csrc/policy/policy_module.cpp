// Python bindings of short ops that call the dispatcher, as those of mlp (mlp_module.cpp).
#include "policy_module.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/randint.h>
#include <torch/csrc/utils/pybind.h>

#include <limits>
#include <optional>
#include <tuple>

namespace py = pybind11;

namespace automl_ext {
namespace {

using at::Tensor;
using Optional = const std::optional<Tensor>&;

template <class Signature>
auto find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

std::tuple<Tensor, Tensor> categorical_log_probs(const Tensor& logits, const Tensor& actions) {
  static const auto op =
      find_op<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&)>("automl_ext::categorical_log_probs");
  return op.call(logits, actions);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> policy_gradient_loss(const Tensor& log_probs, const Tensor& entropy,
                                                                const Tensor& values, const Tensor& advantages,
                                                                const Tensor& returns, Optional old_log_probs,
                                                                Optional old_values, Optional weights, double clip,
                                                                double value_clip, double vf_coef, double ent_coef) {
  using Signature = std::tuple<Tensor, Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&,
                                                               const Tensor&, const Tensor&, Optional, Optional,
                                                               Optional, double, double, double, double);
  static const auto op = find_op<Signature>("automl_ext::policy_gradient_loss");
  return op.call(log_probs, entropy, values, advantages, returns, old_log_probs, old_values, weights, clip, value_clip,
                 vf_coef, ent_coef);
}

// Draws the seed of the noise from the generator, or from the default one.
Tensor gumbel_argmax(const Tensor& logits, const std::optional<at::Generator>& generator) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, int64_t)>("automl_ext::gumbel_argmax");
  constexpr auto low = std::numeric_limits<int64_t>::min(), high = std::numeric_limits<int64_t>::max();
  const auto options = at::TensorOptions().dtype(at::kLong).device(logits.device());
  return op.call(logits, at::randint(low, high, {}, generator, options), -1);
}

}  // namespace

void bind_policy(py::module_& m) {
  const py::call_guard<py::gil_scoped_release> released;
  m.def("categorical_log_probs", &categorical_log_probs, released);
  m.def("policy_gradient_loss", &policy_gradient_loss, released);
  m.def("gumbel_argmax", &gumbel_argmax, released);
}

}  // namespace automl_ext
