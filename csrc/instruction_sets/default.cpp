// The portable kernels, with 16-byte vectors: SSE2 on x86-64, NEON on AArch64, the compiler's choice elsewhere.
#include "kernel_headers.h"

#include "default.inc"

#include "all_kernels.inc"
