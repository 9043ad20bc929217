// The autograd library as one translation unit: torch's headers take 15 seconds to compile, and the gradients of an op
// one or two. Each file has a namespace of its own, so that it may name its functions as it likes.
#include "autograd_module.cpp"
#include "bisect/bisect_autograd.cpp"
#include "entmax/entmax_autograd.cpp"
#include "gumbel/gumbel_autograd.cpp"
#include "mixed_op/mixed_op_autograd.cpp"
#include "mlp/gru_autograd.cpp"
#include "mlp/mlp_autograd.cpp"
#include "mlp/mlp_composite.cpp"
#include "policy/loss_autograd.cpp"
#include "policy/policy_autograd.cpp"
#include "returns/returns_autograd.cpp"
