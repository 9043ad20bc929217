"""Sampling: Philox words, the noise computed from them, and the frequencies of the samples."""

from __future__ import annotations

import math

import pytest
import torch
from philox_words import LAST_WORD, ONES_WORD, ZERO_WORD, philox, word_at
from torch import Tensor

from automl_ext import gumbel_argmax, gumbel_entmax15, gumbel_softmax
from automl_ext.ops._gumbel_reference import gumbel_from_words, philox_words

SEEDS = (0, 1, -1, 2**40 + 3, -(2**63), 2**63 - 1)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([LAST_WORD] * 4, [LAST_WORD] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_published_vectors(counter: list[int], key: list[int], expected: list[int]) -> None:
    """Known answers of Random123. The stream below is compared with this implementation."""
    assert philox(counter, key) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_stream_is_philox_bit_by_bit(seed: int) -> None:
    n = 64 * 40 + 5
    words = philox_words(torch.tensor(seed), n)
    positions = [*range(130), n - 65, n - 2, n - 1]
    assert words[positions].tolist() == [word_at(seed, e) for e in positions]


def test_first_words_are_the_published_ones() -> None:
    assert philox_words(torch.tensor(0), 64)[::16].tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_finite_and_decreasing_for_every_word(dtype: torch.dtype) -> None:
    edges = [0, 1, 2, 255, 2**31, LAST_WORD - 512, LAST_WORD - 255, LAST_WORD - 128, LAST_WORD - 1, LAST_WORD]
    noise = gumbel_from_words(torch.tensor(edges), dtype)
    assert noise.dtype == dtype
    assert noise.isfinite().all()
    assert (noise.diff() <= 0).all()
    low = -math.log(24 * math.log(2)) if dtype == torch.float32 else -math.log(33 * math.log(2))
    torch.testing.assert_close(noise[[0, -1]], torch.tensor([33 * math.log(2), low], dtype=dtype), rtol=1e-6, atol=0)


def differences(seed: int, n: int, dtype: torch.dtype) -> Tensor:
    """Return the noise of element 2i minus that of element 2i + 1, from pairs sampled at τ = 1."""
    y = gumbel_softmax(torch.zeros(n // 2, 2, dtype=dtype), seed=seed).double()
    return y[:, 0].log() - y[:, 1].log()


def words_differences(seed: int, n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    noise = gumbel_from_words(philox_words(torch.tensor(seed), n), dtype).double().view(-1, 2)
    return noise[:, 0] - noise[:, 1], noise.abs().amax(1).clamp(min=1)


@pytest.mark.parametrize("seed", SEEDS)
def test_ops_use_the_noise_of_the_stream(seed: int, each_backend: str) -> None:
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        expected, scale = words_differences(seed, 10_000, dtype)
        error = (differences(seed, 10_000, dtype) - expected).abs() / scale
        assert error.max() < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("seed", "element"), [ZERO_WORD, ONES_WORD])
def test_extreme_words_inside_the_ops(seed: int, element: int, dtype: torch.dtype, each_backend: str) -> None:
    """The common formula (u >> 8 + ½)·2⁻²⁴ is 1 in float32 for the largest words, which gives infinite noise."""
    word = word_at(seed, element)
    assert word in (0, LAST_WORD)
    noise = gumbel_from_words(philox_words(torch.tensor(seed), 64), dtype).double()
    logits = torch.zeros(64, dtype=dtype)
    y = gumbel_softmax(logits, seed=seed)
    torch.testing.assert_close(y.double(), noise.softmax(0), rtol=3e-6 if dtype == torch.float32 else 1e-12, atol=0)
    assert y.argmin() == element if word else y.argmax() == element
    assert gumbel_argmax(logits, seed=seed) == noise.argmax()
    expected, scale = words_differences(seed, 64, dtype)
    assert ((differences(seed, 64, dtype) - expected).abs() <= 1e-6 * scale).all()


# ---- frequencies


def p_value(chi_square: Tensor, degrees: int) -> float:
    """Return the probability of a chi-square statistic at least this large."""
    return float(torch.special.gammaincc(torch.tensor(degrees / 2, dtype=torch.float64), chi_square / 2))


def fit(index: Tensor, probabilities: Tensor) -> float:
    """Return the p-value of Pearson's test of sampled categories; rare categories are merged."""
    counts = torch.bincount(index.flatten(), minlength=len(probabilities)).double()
    expected = probabilities.double() * index.numel()
    rare = expected < 10
    if rare.any():
        counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
        expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    return p_value(((counts - expected) ** 2 / expected).sum(), len(counts) - 1)


def some_logits(categories: int) -> Tensor:
    return 1.5 * torch.randn(categories, generator=torch.Generator().manual_seed(categories))


@pytest.mark.parametrize(("categories", "rows"), [(2, 200_000), (8, 200_000), (33, 60_000), (1000, 2_000)])
def test_frequencies_are_softmax_of_the_logits(categories: int, rows: int, each_backend: str) -> None:
    """Of one op: the others choose the same, a property of each row that a tenth of the rows shows."""
    logits = some_logits(categories)
    index = gumbel_argmax(logits.expand(rows, -1), seed=categories + rows)
    assert 1e-3 < fit(index, logits.softmax(-1)) < 1 - 1e-3
    few = logits.expand(rows // 10, -1)
    for hard in (
        gumbel_softmax(few, 0.5, True, seed=categories + rows),
        gumbel_entmax15(few, 2.0, True, seed=categories + rows),
    ):
        assert torch.equal(hard.argmax(-1), index[: len(few)])


def test_the_frequency_test_detects_wrong_noise() -> None:
    logits = some_logits(8)
    rows = logits.expand(200_000, -1)
    u = torch.rand(rows.shape, generator=torch.Generator().manual_seed(0)).clamp(1e-7, 1 - 1e-7)
    normal = math.pi / math.sqrt(6) * torch.special.ndtri(u)  # with the same variance
    upside_down = torch.log(-torch.log(u))
    for noise in (normal, upside_down, 1.05 * -torch.log(-torch.log(u))):
        assert fit((rows + noise).argmax(-1), logits.softmax(-1)) < 1e-6


def test_frequencies_over_seeds(each_backend: str) -> None:
    """One row with a new seed for each sample: samples of consecutive seeds are independent."""
    logits = some_logits(5)
    draws = torch.stack([gumbel_argmax(logits, seed=seed) for seed in range(1500)])
    assert 1e-3 < fit(draws, logits.softmax(-1)) < 1 - 1e-3


@pytest.mark.parametrize("distance", [1, 2, 8, 16])
def test_rows_are_independent(distance: int) -> None:
    """The frequencies of pairs of samples at a distance are the products of their probabilities."""
    logits = some_logits(4)
    index = gumbel_argmax(logits.expand(200_000, -1), seed=distance)
    pairs = 4 * index[:-distance] + index[distance:]
    p = logits.double().softmax(-1)
    disjoint = pairs[(torch.arange(len(pairs)) // distance) % 2 == 0]  # every sample is in one pair
    assert 1e-3 < fit(disjoint, torch.outer(p, p).flatten()) < 1 - 1e-3


def test_rare_categories_keep_their_probability(each_backend: str) -> None:
    """Counts are Poisson distributed and must be within four standard deviations."""
    rows = 2**22 if each_backend == "native" else 2**20
    for gap in (8.0, 10.0):
        expected = rows / (1 + math.exp(gap))
        chosen = int(gumbel_argmax(torch.tensor([gap, 0.0]).expand(rows, 2), seed=7).sum())
        assert abs(chosen - expected) < 4 * math.sqrt(expected)


def test_far_tail() -> None:
    """The word of element 48 is 0: its noise, 22.87, exceeds a lead of 22. With 24 bits, noise is at most 17.3."""
    seed, element = ZERO_WORD
    logits = torch.zeros(64)
    logits[1] = 22.0
    assert gumbel_argmax(logits, seed=seed) == element


@pytest.mark.parametrize("tau", [0.3, 1.0, 3.0])
def test_same_distribution_as_torch(tau: float) -> None:
    """Kolmogorov–Smirnov test of two samples of 200 000, for each component, at the 0.1 % level."""
    rows = 200_000
    logits = some_logits(3).expand(rows, -1)
    torch.manual_seed(3)
    ours = gumbel_softmax(logits, tau)
    theirs = torch.nn.functional.gumbel_softmax(logits, tau)
    for a, b in zip(ours.T, theirs.T, strict=True):
        both = torch.cat([a, b]).sort().values
        cdfs = [torch.searchsorted(x.sort().values, both, right=True) / rows for x in (a, b)]
        assert (cdfs[0] - cdfs[1]).abs().max() < math.sqrt(-math.log(1e-3 / 2) / rows)
