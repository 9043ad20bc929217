// The internal functions of the default kernels.
#include "internals.h"

#define SIMD_NAMESPACE simd_default
#include "../../csrc/instruction_sets/default.inc"

#include "internals.inc"
