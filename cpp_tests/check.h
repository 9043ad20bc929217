// CHECK(condition, "format", values…) counts failures and prints the first ten; finish() is what main returns.
#pragma once
#include <cstdio>

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
