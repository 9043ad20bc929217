"""The Philox4x32-10 stream in Python integers, the reference for Gumbel noise."""

from __future__ import annotations

LAST_WORD = 2**32 - 1
# (seed, element) of a word 0 and of a word 2³² − 1, found by search.
ZERO_WORD = (1343428, 48)
ONES_WORD = (39896521, 31)


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Return the four words of a counter, by Philox4x32-10 (Salmon et al. 2011)."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [b >> 32 ^ c[1] ^ k0, b & LAST_WORD, a >> 32 ^ c[3] ^ k1, a & LAST_WORD]
        k0, k1 = (k0 + 0x9E3779B9) & LAST_WORD, (k1 + 0xBB67AE85) & LAST_WORD
    return c


def word_at(seed: int, e: int) -> int:
    """Return the word of element e of the stream of a seed."""
    counter = 16 * (e // 64) + e % 16
    return philox([counter & LAST_WORD, counter >> 32, 0, 0], [seed & LAST_WORD, (seed >> 32) & LAST_WORD])[
        e % 64 // 16
    ]
