// The CPU kernels, compiled once per instruction set and chosen at run time.
#pragma once
#include "../dense/dense.h"
#include "../entmax/entmax.h"
#include "../gumbel/gumbel.h"
#include "../mixed_op/mixed_op.h"
#include "../returns/returns.h"
#include "../targets/targets.h"

// Clang has no `#pragma GCC target`: there, and on other processors, the portable kernels are all there is.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
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
  DenseKernels dense;
};

// The best set this CPU has. AUTOML_EXT_CPU=default|avx2|avx512, read once, forces a lower one.
const Kernels& kernels();

// "default, avx2, avx512", as far as this build has them.
const char* compiled_instruction_sets();

}  // namespace automl_ext
