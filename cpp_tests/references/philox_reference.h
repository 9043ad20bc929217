// Philox4x32-10 (Salmon et al. 2011), and the mapping from elements to its words.
#pragma once
#include <array>
#include <cstdint>

namespace automl_ext {

inline std::array<uint32_t, 4> philox_reference(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c[0], p1 = uint64_t(0xCD9E8D57u) * c[2];
    c = {uint32_t(p1 >> 32) ^ c[1] ^ k[0], uint32_t(p1), uint32_t(p0 >> 32) ^ c[3] ^ k[1], uint32_t(p0)};
    k = {k[0] + 0x9E3779B9u, k[1] + 0xBB67AE85u};
  }
  return c;
}

inline uint32_t word_of_element(uint64_t seed, uint64_t e) {
  const uint64_t counter = 16 * (e / 64) + e % 16;
  const auto words =
      philox_reference({uint32_t(counter), uint32_t(counter >> 32), 0, 0}, {uint32_t(seed), uint32_t(seed >> 32)});
  return words[e % 64 / 16];
}

}  // namespace automl_ext
