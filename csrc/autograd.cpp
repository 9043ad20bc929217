// The autograd library as one translation unit: torch's headers take 15 seconds to compile, and the gradients of an op
// one or two. Each file has a namespace of its own, so that it may name its functions as it likes.
#include "autograd_module.cpp"
// clang-format off
#define FAMILY_FILE(family) FAMILY_FILE_TEXT(family/family##_autograd.cpp)
// clang-format on
#include "families.inc"
// Parts of a family with a file of their own.
#include "mlp/gru_autograd.cpp"
#include "mlp/mlp_composite.cpp"
#include "policy/loss_autograd.cpp"
