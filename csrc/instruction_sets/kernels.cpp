// Selection of the CPU kernels at run time.
#include "kernels.h"

#include <cstdlib>
#include <cstring>

namespace automl_ext {

namespace simd_default {
extern const Kernels kernels;
}
#ifdef AUTOML_EXT_X86
namespace simd_avx2 {
extern const Kernels kernels;
}
namespace simd_avx512 {
extern const Kernels kernels;
}
#endif

namespace {

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
  const char* names[] = {"default", "avx2", "avx512"};
  for (int i = 0; i <= level; ++i)
    if (!std::strcmp(forced, names[i])) return i;
  return level;  // a set that this CPU lacks, or an unknown name; `automl-ext doctor` shows the set in use
}

const Kernels& choose() {
#ifdef AUTOML_EXT_X86
  switch (chosen_level()) {
    case 2: return simd_avx512::kernels;
    case 1: return simd_avx2::kernels;
  }
#endif
  return simd_default::kernels;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

// Declared in the headers of the families, so that no family includes the tables of the others.
const EntmaxKernels& entmax_kernels() { return kernels().entmax; }
const GumbelKernels& gumbel_kernels() { return kernels().gumbel; }
const MixedOpKernels& mixed_op_kernels() { return kernels().mixed_op; }
const ReturnsKernels& returns_kernels() { return kernels().returns; }
const TargetsKernels& targets_kernels() { return kernels().targets; }
const MlpKernels& mlp_kernels() { return kernels().mlp; }
const BisectKernels& bisect_kernels() { return kernels().bisect; }
const PolicyKernels& policy_kernels() { return kernels().policy; }

const char* compiled_instruction_sets() {
#ifdef AUTOML_EXT_X86
  return "default, avx2, avx512";
#else
  return "default";
#endif
}

}  // namespace automl_ext
