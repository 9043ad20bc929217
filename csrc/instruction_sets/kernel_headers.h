// The headers that kernel files may include. No torch headers, so that the kernels compile fast.
#pragma once
#include "kernels.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef AUTOML_EXT_X86
#include <immintrin.h>
#endif
