// The element types the kernels take, as an index into their tables.
#pragma once
#include <cstdint>

namespace automl_ext {

enum DType : int { kFloat64, kFloat32, kBFloat16, kFloat16, kDTypes };

// Storage of the half types. Plain structs, so that kernel files need no torch header.
struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

}  // namespace automl_ext
