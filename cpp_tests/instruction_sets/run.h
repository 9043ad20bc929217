// Runs a test on one instruction set: the one AUTOML_EXT_CPU names, else the best.
#pragma once
#include <cstdlib>
#include <cstring>

#include "../references/check.h"
#include "internals.h"

namespace automl_ext {

struct InstructionSet {
  const char* name;
  const Kernels& kernels;
  const Internals& inside;
};

inline const Internals& internals_of(const char* name) {
#ifdef AUTOML_EXT_X86
  if (!std::strcmp(name, "avx2")) return simd_avx2::internals;
  if (!std::strcmp(name, "avx512")) return simd_avx512::internals;
#endif
  return std::strcmp(name, "default") ? std::abort(), simd_default::internals : simd_default::internals;
}

inline int run(void (*test)(const InstructionSet&)) {
  const char *asked = std::getenv("AUTOML_EXT_CPU"), *used = kernels().instruction_set;
  if (asked && std::strcmp(asked, used)) {
    std::printf("skipped: this CPU or this build lacks %s\n", asked);
    return 77;
  }
  std::printf("instruction set: %s\n", used);
  test({used, kernels(), internals_of(used)});
  return finish();
}

}  // namespace automl_ext
