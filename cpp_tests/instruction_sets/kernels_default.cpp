// The default kernels as shipped, and their internals.
#include "internals.h"

#include "../../csrc/instruction_sets/default.cpp"
#include "internals.inc"
