#include "choice.h"

#include <cstdlib>
#include <cstring>

#ifdef AUTOML_EXT_TILES
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace automl_ext {
namespace {

constexpr const char* kNames[] = {"default", "avx2", "avx512", "amx"};

#ifdef AUTOML_EXT_TILES
// Linux saves the tiles of a process that has asked for it. oneDNN asks in the same way.
bool may_use_tiles() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kBfloat16 = 1u << 22, kTile = 1u << 24;
  constexpr long kAskForPermission = 0x1023, kTileData = 18;
  return (d & kBfloat16) && (d & kTile) && syscall(SYS_arch_prctl, kAskForPermission, kTileData) == 0;
}
#endif

int supported_level() {
#ifdef AUTOML_EXT_X86
  __builtin_cpu_init();
  // Every processor with AVX2 has F16C, whose name clang does not know.
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (!avx512) return 1;
#ifdef AUTOML_EXT_TILES
  if (may_use_tiles()) return 3;
#endif
  return 2;
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

int level() {
  static const int level = chosen_level();
  return level;
}

}  // namespace

int kernel_level() { return level() < 2 ? level() : 2; }
bool has_tiles() { return level() == 3; }
const char* instruction_set() { return kNames[level()]; }

const char* compiled_instruction_sets() {
#if defined(AUTOML_EXT_TILES)
  return "default, avx2, avx512, amx";
#elif defined(AUTOML_EXT_X86)
  return "default, avx2, avx512";
#else
  return "default";
#endif
}

}  // namespace automl_ext
