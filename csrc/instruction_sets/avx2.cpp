// Every #include comes before the pragma: only our own namespace may be compiled for AVX2.
#include "kernel_headers.h"

#ifdef AUTOML_EXT_X86
#pragma GCC target("avx2,fma,f16c")
#define SIMD_AVX2 1
#define SIMD_NAMESPACE simd_avx2
#define SIMD_BYTES 32
#define SIMD_NAME "avx2"
#include "all_kernels.inc"
#endif
