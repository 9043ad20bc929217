// The default kernels of the library, and their internal functions.
#include "internals.h"

#include "../../csrc/instruction_sets/default.cpp"
#include "internals.inc"
