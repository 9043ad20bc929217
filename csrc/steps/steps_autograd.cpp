// A whole training step has no gradient: it computes that of its loss itself. Nor has acting.
#include "../common/autograd.h"

TORCH_LIBRARY_IMPL(automl_ext, Autograd, m) {
  for (const char* step : {"policy_gradient_step", "td_step", "policy_act"})
    m.impl(step, torch::CppFunction::makeFallthrough());
}
