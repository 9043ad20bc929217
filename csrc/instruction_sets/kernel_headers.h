// All that a kernel file includes; no torch header, so one compiles in a second.
#pragma once
#include "kernels.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef AUTOML_EXT_X86
#include <immintrin.h>
#endif
