// CHECK(condition, "format", values…) counts failed checks and prints the first ten. main returns finish(), which is 1
// if a check failed or none was made.
#pragma once
#include <cstdio>
#include <cstring>
#include <initializer_list>

inline long long checks_done = 0, checks_failed = 0;

#define CHECK(condition, ...)                                     \
  do {                                                            \
    ++checks_done;                                                \
    if (!(condition) && ++checks_failed <= 10) {                  \
      std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      std::printf(__VA_ARGS__);                                   \
      std::printf("\n");                                          \
    }                                                             \
  } while (0)

inline int finish() {
  std::printf("%lld checks, %lld failed\n", checks_done, checks_failed);
  return checks_failed != 0 || checks_done == 0;
}

struct Part {
  const char* name;
  void (*test)();
};

// Runs the part of the program that argv[1] names. Tests of the same kernels share one program, because compiling the
// kernels takes most of the build time.
inline int run_part(int argc, char** argv, std::initializer_list<Part> parts) {
  for (const Part& part : parts)
    if (argc == 2 && !std::strcmp(argv[1], part.name)) {
      part.test();
      return finish();
    }
  std::printf("usage: %s PART; the parts:", argv[0]);
  for (const Part& part : parts) std::printf(" %s", part.name);
  std::printf("\n");
  return 2;
}
