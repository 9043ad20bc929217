// The internal functions of the avx2 kernels.
#include "internals.h"

#ifdef AUTOML_EXT_X86
#define SIMD_NAMESPACE simd_avx2
#include "../../csrc/instruction_sets/avx2.inc"

#include "internals.inc"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
