// The words of the random stream: the reference against published test vectors, the kernels against the reference.
#include "../instruction_sets/run.h"
#include "../references/philox_reference.h"

using namespace automl_ext;

struct KnownAnswer {  // from Random123's kat_vectors, "philox4x32 10"
  std::array<uint32_t, 4> counter;
  std::array<uint32_t, 2> key;
  std::array<uint32_t, 4> words;
};
static const uint32_t ones = 0xffffffff;
static const KnownAnswer known_answers[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{ones, ones, ones, ones}, {ones, ones}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

static void test(const InstructionSet& set) {
  for (const KnownAnswer& known : known_answers) {
    const auto words = philox_reference(known.counter, known.key);
    for (int q = 0; q < 4; ++q) CHECK(words[q] == known.words[q], "word %d: %08x", q, words[q]);
  }

  uint32_t words[128];
  set.internals.philox_two_blocks(0, 0, words);
  for (int q = 0; q < 4; ++q)
    CHECK(words[16 * q] == known_answers[0].words[q], "kernel, word %d: %08x", q, words[16 * q]);

  // A block has 16 counters: the low counter word overflows between blocks 2²⁸ − 1 and 2²⁸.
  const uint64_t carry = 1u << 28, last = (uint64_t(1) << 57) - 1;
  const uint64_t blocks[] = {0,         1,         2,    1000,  carry - 2,     carry - 1,     carry,
                             carry + 1, carry + 2, last, 2 * carry - 1, 2 * carry, carry * 1000 + 12345};
  const uint64_t seeds[] = {0, 1, 0xffffffff, uint64_t(1) << 32, 0x299f31d0a4093822, ~uint64_t(0), uint64_t(1) << 63};
  for (const uint64_t seed : seeds)
    for (const uint64_t block : blocks) {
      set.internals.philox_two_blocks(seed, block, words);
      for (int e = 0; e < 128; ++e) {
        const uint32_t expected = word_of_element(seed, 64 * block + e);
        CHECK(words[e] == expected, "seed %llx block %llx element %d: got %08x, expected %08x",
              (unsigned long long)seed, (unsigned long long)block, e, words[e], expected);
      }
    }
}

int main() { return run(test); }
