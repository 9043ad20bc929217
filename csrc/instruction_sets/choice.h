// Selection of the CPU kernels at run time: each kernel is compiled once per instruction set.
#pragma once

// On other architectures and with -DAUTOML_EXT_PORTABLE only the portable kernels are compiled.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(AUTOML_EXT_PORTABLE)
#define AUTOML_EXT_X86 1
#endif

namespace automl_ext {

// AMX needs the permission of Linux.
#if defined(AUTOML_EXT_X86) && defined(__linux__)
#define AUTOML_EXT_TILES 1
#endif

// The best instruction set of this CPU: "default", "avx2", "avx512", or "amx", which is avx512 with tiles of bfloat16.
// AUTOML_EXT_CPU, read once, selects a lower one.
const char* instruction_set();

// The instruction sets in this build, for example "default, avx2, avx512, amx".
const char* compiled_instruction_sets();

// 0, 1, 2: the kernels of "default", "avx2" and "avx512", the last also with "amx".
int kernel_level();

// If the kernels may use tiles.
bool has_tiles();

// Declares the tables of a family, which <family>_kernel.inc defines for each set in a namespace of its own, and the
// function <family>_kernels(), which returns the table of the chosen set.
#define DECLARE_TABLE(Table, family, set) \
  namespace simd_##set##_##family {       \
    extern const Table family##_table;    \
  }
#ifdef AUTOML_EXT_X86
#define DECLARE_KERNELS(Table, family)                                                                          \
  DECLARE_TABLE(Table, family, default)                                                                         \
  DECLARE_TABLE(Table, family, avx2)                                                                            \
  DECLARE_TABLE(Table, family, avx512)                                                                          \
  inline const Table& family##_kernels() {                                                                      \
    const Table* const tables[] = {&simd_default_##family::family##_table, &simd_avx2_##family::family##_table, \
                                   &simd_avx512_##family::family##_table};                                      \
    return *tables[kernel_level()];                                                                             \
  }
#else
#define DECLARE_KERNELS(Table, family)  \
  DECLARE_TABLE(Table, family, default) \
  inline const Table& family##_kernels() { return simd_default_##family::family##_table; }
#endif

}  // namespace automl_ext
