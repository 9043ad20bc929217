// The avx512 kernels of the library, and their internal functions.
#include "internals.h"

#include "../../csrc/instruction_sets/avx512.cpp"
#ifdef AUTOML_EXT_X86
#include "internals.inc"
#endif
