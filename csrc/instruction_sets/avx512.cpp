// Every #include comes before avx512.inc: only our own namespace may be compiled for AVX-512.
#include "kernel_headers.h"

#ifdef AUTOML_EXT_X86
#include "avx512.inc"

#include "all_kernels.inc"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
