"""Rank correlations with ties: Kendall's τ-b and Spearman's ρ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def kendall(x: ArrayLike, y: ArrayLike) -> float:
    """Compute Kendall's τ-b of paired scores [n] in O(n log² n).

    τ-b = (P − Q)/√((n₀ − n₁)(n₀ − n₂)) with P concordant and Q discordant pairs among n₀ = n(n − 1)/2, of which n₁ are
    tied in x and n₂ in y (Kendall 1945, "The treatment of ties in ranking problems").

    Returns:
        A number from −1 to 1; NaN if x or y is constant.

    Raises:
        ValueError: the lengths differ, there are fewer than two pairs, or a score is NaN.
    """
    a, b = _dense_ranks(x, y)
    order = np.lexsort((b, a))  # ties in x are sorted by y, so they contain no inversion
    discordant = _inversions(b[order])
    pairs = len(a) * (len(a) - 1) // 2
    tied_x, tied_y, tied_both = _tied_pairs(a), _tied_pairs(b), _tied_pairs(a * len(b) + b)
    concordant = pairs - tied_x - tied_y + tied_both - discordant
    scale = ((pairs - tied_x) * (pairs - tied_y)) ** 0.5
    return (concordant - discordant) / scale if scale else float("nan")


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Compute Spearman's ρ of paired scores [n], the correlation of their ranks. Ties get their mean rank.

    Returns:
        A number from −1 to 1; NaN if x or y is constant.

    Raises:
        ValueError: as in :func:`kendall`.
    """
    a, b = (_mean_ranks(ranks) for ranks in _dense_ranks(x, y))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else float("nan")


def mean_ranks(x: ArrayLike) -> NDArray[np.float64]:
    """Return the rank of every score in ``x`` [n], 1 for the lowest. Ties get their mean rank, which may be fractional.

    Raises:
        ValueError: a score is NaN.
    """
    scores = np.asarray(x, dtype=np.float64)
    if np.isnan(scores).any():
        raise ValueError(f"x: expected scores without NaN, got {int(np.isnan(scores).sum())} of them")
    return _mean_ranks(np.unique(scores, return_inverse=True)[1].astype(np.int64))


def _dense_ranks(x: ArrayLike, y: ArrayLike) -> list[NDArray[np.int64]]:
    """Return ranks from 0. Equal scores have the same rank."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise ValueError(f"x, y: expected at least two pairs of scores, got shapes {a.shape} and {b.shape}")
    for name, scores in (("x", a), ("y", b)):
        if np.isnan(scores).any():
            raise ValueError(f"{name}: expected scores without NaN, got {int(np.isnan(scores).sum())} of them")
    return [np.unique(scores, return_inverse=True)[1].astype(np.int64) for scores in (a, b)]


def _mean_ranks(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Turn dense ranks from 0 into ranks from 1, where ties have the mean of their ranks."""
    counts = np.bincount(ranks)
    ends = counts.cumsum()
    return (ends - (counts - 1) / 2)[ranks]


def _tied_pairs(values: NDArray[np.int64]) -> int:
    counts = np.unique(values, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _inversions(values: Sequence[int] | NDArray[np.int64]) -> int:
    """Count the pairs i < j with values[i] > values[j] ≥ 0.

    At the first binary digit in which such a pair differs, the larger value has a 1. So for every digit, count the
    pairs with a 1 before a 0 among the values that agree in all higher digits.
    """
    rest = np.asarray(values, dtype=np.int64)
    total = 0
    for digit in range(int(rest.max()).bit_length()):
        group = rest >> (digit + 1)
        order = np.argsort(group, kind="stable")  # stable: the order within a group is kept
        group, ones = group[order], rest[order] >> digit & 1
        before = ones.cumsum() - ones
        starts = np.searchsorted(group, group)  # start of the group of each value
        total += int(((before - before[starts]) * (1 - ones)).sum())
    return total
