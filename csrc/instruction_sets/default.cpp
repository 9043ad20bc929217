// The portable kernels, with 16-byte vectors: SSE2 on x86-64, NEON on AArch64, the compiler's choice elsewhere.
#include "kernel_headers.h"

#define SIMD_NAMESPACE simd_default
#define SIMD_BYTES 16
#define SIMD_NAME "default"
#include "all_kernels.inc"
