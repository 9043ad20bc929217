// Every #include comes before the pragma: only our own namespace may be compiled for AVX-512.
#include "kernel_headers.h"

#ifdef AUTOML_EXT_X86
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c")
#define SIMD_AVX512 1
#define SIMD_NAMESPACE simd_avx512
#define SIMD_BYTES 64
#define SIMD_NAME "avx512"
#include "all_kernels.inc"
#endif
