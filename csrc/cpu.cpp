// The schemas and the CPU's entry functions of all ops as one translation unit: torch's stable headers take three seconds
// to compile, and the functions of an op less than one. Each file has a namespace of its own, so that it may name its
// functions as it likes.
//
// Gradients: <family>_autograd.cpp; fake tensors, vmap and autocast: automl_ext/ops/_register.py. Ops with a leading
// underscore implement gradients, or are parts of an op.
// clang-format off
#define FAMILY_FILE(family) FAMILY_FILE_TEXT(family/family##_cpu.cpp)
// clang-format on
#include "families.inc"
// Parts of a family with a file of their own; the replay has no kernels per instruction set.
#include "mlp/gru_cpu.cpp"
#include "policy/loss_cpu.cpp"
#include "replay/replay_cpu.cpp"
