// The CPU's entry functions of all ops as one translation unit: torch's stable headers take three seconds to compile, and
// the functions of an op less than one. Each file has a namespace of its own, so that it may name its functions as it likes.
#include "bisect/bisect_cpu.cpp"
#include "entmax/entmax_cpu.cpp"
#include "gumbel/gumbel_cpu.cpp"
#include "mixed_op/mixed_op_cpu.cpp"
#include "mlp/gru_cpu.cpp"
#include "mlp/mlp_cpu.cpp"
#include "policy/loss_cpu.cpp"
#include "policy/policy_cpu.cpp"
#include "replay/replay_cpu.cpp"
#include "returns/returns_cpu.cpp"
#include "targets/targets_cpu.cpp"
