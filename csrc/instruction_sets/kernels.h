// The tables of all CPU kernels, compiled once per instruction set and selected at run time.
#pragma once
#include "../bisect/bisect.h"
#include "../entmax/entmax.h"
#include "../gumbel/gumbel.h"
#include "../mixed_op/mixed_op.h"
#include "../mlp/mlp.h"
#include "../policy/policy.h"
#include "../returns/returns.h"
#include "../targets/targets.h"

// On other architectures and with -DAUTOML_EXT_PORTABLE only the portable kernels are compiled.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(AUTOML_EXT_PORTABLE)
#define AUTOML_EXT_X86 1
#endif

namespace automl_ext {

struct Kernels {
  const char* instruction_set;
  EntmaxKernels entmax;
  GumbelKernels gumbel;
  MixedOpKernels mixed_op;
  ReturnsKernels returns;
  TargetsKernels targets;
  MlpKernels mlp;
  PolicyKernels policy;
  BisectKernels bisect;
};

// The kernels of the best instruction set of this CPU. AUTOML_EXT_CPU=default|avx2|avx512, read once, selects a lower
// one.
const Kernels& kernels();

// The instruction sets in this build, for example "default, avx2, avx512".
const char* compiled_instruction_sets();

}  // namespace automl_ext
