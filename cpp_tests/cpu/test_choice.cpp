// Which kernels run: the best the CPU has, or a lower set that AUTOML_EXT_CPU names.
#include "../instruction_sets/run.h"

int main() {
  const char *best = "default", *asked = std::getenv("AUTOML_EXT_CPU");
  bool has_asked = asked && !std::strcmp(asked, "default");
#ifdef AUTOML_EXT_X86
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  best = avx512 ? "avx512" : avx2 ? "avx2" : "default";
  has_asked |= asked && ((avx2 && !std::strcmp(asked, "avx2")) || (avx512 && !std::strcmp(asked, "avx512")));
#endif
  const char *expected = has_asked ? asked : best, *used = automl_ext::kernels().instruction_set;
  CHECK(!std::strcmp(used, expected), "asked for %s: got %s, expected %s", asked ? asked : "nothing", used, expected);
  CHECK(std::strstr(automl_ext::compiled_instruction_sets(), used), "not among %s",
        automl_ext::compiled_instruction_sets());
  return finish();
}
