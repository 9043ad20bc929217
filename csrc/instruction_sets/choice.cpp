#include "choice.h"

#include <cstdlib>
#include <cstring>

namespace automl_ext {
namespace {

constexpr const char* kNames[] = {"default", "avx2", "avx512"};

int supported_level() {
#ifdef AUTOML_EXT_X86
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) return 0;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  return avx512 ? 2 : 1;
#else
  return 0;
#endif
}

int chosen_level() {
  const int level = supported_level();
  const char* forced = std::getenv("AUTOML_EXT_CPU");
  if (!forced) return level;
  for (int i = 0; i <= level; ++i)
    if (!std::strcmp(forced, kNames[i])) return i;
  return level;  // a set that this CPU lacks, or an unknown name; `automl-ext doctor` shows the set in use
}

}  // namespace

int instruction_set_level() {
  static const int level = chosen_level();
  return level;
}

const char* instruction_set() { return kNames[instruction_set_level()]; }

const char* compiled_instruction_sets() {
#ifdef AUTOML_EXT_X86
  return "default, avx2, avx512";
#else
  return "default";
#endif
}

}  // namespace automl_ext
