// The avx512 kernels as shipped, and their internals.
#include "internals.h"

#include "../../csrc/instruction_sets/avx512.cpp"
#ifdef AUTOML_EXT_X86
#include "internals.inc"
#endif
