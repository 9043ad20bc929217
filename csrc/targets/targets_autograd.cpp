// Targets are constants of a loss: they have no gradient.
#include "../common/autograd.h"

TORCH_LIBRARY_IMPL(automl_ext, Autograd, m) {
  for (const char* target : {"td_targets", "categorical_projection"})
    m.impl(target, torch::CppFunction::makeFallthrough());
}
