// The internal functions of the avx512 kernels.
#include "internals.h"

#ifdef AUTOML_EXT_X86
#define SIMD_NAMESPACE simd_avx512
#include "../../csrc/instruction_sets/avx512.inc"

#include "internals.inc"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
