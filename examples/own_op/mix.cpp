// sparse_mix::mix(scores, values): the rows of values, averaged with the sparse weights entmax15(scores).
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

using torch::stable::Tensor;

// Calls an op of automl_ext by its name in torch's dispatcher: there is nothing to link with, and no header to include.
static Tensor entmax15(const Tensor& x, int64_t dim) {
  StableIValue stack[] = {torch::stable::detail::from(x), torch::stable::detail::from(dim)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("automl_ext::entmax15", "", stack, TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

static Tensor mix(Tensor scores, Tensor values) { return torch::stable::matmul(entmax15(scores, -1), values); }

STABLE_TORCH_LIBRARY(sparse_mix, m) { m.def("mix(Tensor scores, Tensor values) -> Tensor"); }

// The op consists of other ops, which bring gradients, devices and torch.compile. (Under vmap, it runs once per item.)
STABLE_TORCH_LIBRARY_IMPL(sparse_mix, CompositeImplicitAutograd, m) { m.impl("mix", TORCH_BOX(&mix)); }
