// The instruction set in use: the best one of the CPU, or a lower one named by AUTOML_EXT_CPU.
#include "../instruction_sets/run.h"

int main() {
  const char *best = "default", *requested = std::getenv("AUTOML_EXT_CPU");
  bool has_requested = requested && !std::strcmp(requested, "default");
#ifdef AUTOML_EXT_X86
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  best = automl_ext::has_tiles() ? "amx" : avx512 ? "avx512" : avx2 ? "avx2" : "default";
  has_requested |= requested && avx2 && !std::strcmp(requested, "avx2");
  has_requested |= requested && avx512 && !std::strcmp(requested, "avx512");
#endif
  const char *expected = has_requested ? requested : best, *used = automl_ext::instruction_set();
  CHECK(!std::strcmp(used, expected), "requested %s: got %s, expected %s", requested ? requested : "nothing", used,
        expected);
  CHECK(std::strstr(automl_ext::compiled_instruction_sets(), used), "%s is not in %s", used,
        automl_ext::compiled_instruction_sets());
  return finish();
}
