// The avx2 kernels as shipped, and their internals.
#include "internals.h"

#include "../../csrc/instruction_sets/avx2.cpp"
#ifdef AUTOML_EXT_X86
#include "internals.inc"
#endif
