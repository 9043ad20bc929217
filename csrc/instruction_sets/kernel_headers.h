// The headers that kernels use. No torch headers, so that the kernels compile fast.
#pragma once
#include "../common/half.h"
#include "kernels.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#ifdef AUTOML_EXT_X86
#include <immintrin.h>
#endif
