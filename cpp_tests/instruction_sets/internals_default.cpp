// The internal functions of the default kernels.
#include "internals.h"

#include "../../csrc/instruction_sets/default.inc"

#include "internals.inc"
