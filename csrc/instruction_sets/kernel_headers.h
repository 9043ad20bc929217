// The headers that kernels use. No torch headers, so that the kernels compile fast.
#pragma once
#include "../common/half.h"
#include "choice.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#ifdef AUTOML_EXT_X86
#include <immintrin.h>
#endif

// clang-format off
#define FAMILY_FILE(family) FAMILY_FILE_TEXT(family/family.h)
// clang-format on
#include "../families.inc"
