// Runs a test with the instruction set named by AUTOML_EXT_CPU, by default the best one. Skips it if the set is
// missing.
#pragma once
#include <cstdlib>
#include <cstring>

#include "../references/check.h"
#include "internals.h"

namespace automl_ext {

struct InstructionSet {
  const char* name;
  const Internals& internals;
};

inline const Internals& internals_of(const char* name) {
#ifdef AUTOML_EXT_X86
  if (!std::strcmp(name, "avx2")) return simd_avx2::internals;
  if (!std::strcmp(name, "avx512") || !std::strcmp(name, "amx")) return simd_avx512::internals;
#endif
  return std::strcmp(name, "default") ? std::abort(), simd_default::internals : simd_default::internals;
}

inline int run(void (*test)(const InstructionSet&)) {
  const char *requested = std::getenv("AUTOML_EXT_CPU"), *used = instruction_set();
  if (requested && std::strcmp(requested, used)) {
    std::printf("skipped: this CPU or this build lacks %s\n", requested);
    return 77;
  }
  std::printf("instruction set: %s\n", used);
  test({used, internals_of(used)});
  return finish();
}

}  // namespace automl_ext
