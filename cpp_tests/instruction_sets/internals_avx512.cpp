// The internal functions of the avx512 kernels.
#include "internals.h"

#ifdef AUTOML_EXT_X86
#include "../../csrc/instruction_sets/avx512.inc"

#include "internals.inc"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
