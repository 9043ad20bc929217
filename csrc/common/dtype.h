// Element types of the kernels, used as indices into the kernel tables.
#pragma once
#include <cstdint>

namespace automl_ext {

enum DType : int { kFloat64, kFloat32, kBFloat16, kFloat16, kDTypes };

// Storage of half precision numbers: plain structs, so that kernel files need no torch headers.
struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

}  // namespace automl_ext
