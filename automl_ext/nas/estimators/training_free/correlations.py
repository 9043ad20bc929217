"""Ranks of architectures: the combination of scores by the sum of log-ranks, and correlations with accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def log_rank_sum(scores: Mapping[str, ArrayLike], names: Sequence[str]) -> NDArray[np.float64]:
    """Combine scores of n architectures by Σ log(rank / n), ranks from 1 (lowest) to n (Lee & Ham, CVPR 2024, eq. 6).

    A low rank in one score costs more than a high rank gains, so the best architectures are good in all scores. The
    result depends on the set of architectures that are ranked together.

    Args:
        scores: values [n] by name. −inf: the score is not defined.
        names: the scores to combine.

    Returns:
        The combined scores [n], at most 0. An architecture without one of the scores gets −inf, the last place.

    Raises:
        ValueError: no score is named, or a score is NaN.
    """
    if not names:
        raise ValueError("names: expected at least one score")
    columns = [np.asarray(scores[name], dtype=np.float64) for name in names]
    total = np.sum([np.log(mean_ranks(column) / len(column)) for column in columns], axis=0)
    return np.where(np.isneginf(columns).any(axis=0), -np.inf, total)


def mean_ranks(x: ArrayLike) -> NDArray[np.float64]:
    """Return the rank of every score in ``x`` [n], 1 for the lowest. Ties get their mean rank, which may be fractional.

    Raises:
        ValueError: a score is NaN.
    """
    _, places, counts = np.unique(_without_nan("x", x), return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[places]


def kendall(x: ArrayLike, y: ArrayLike) -> float:
    """Compute Kendall's τ-b of paired scores [n] by SciPy; NaN if x or y is constant.

    Raises:
        ValueError: the lengths differ, there are fewer than two pairs, or a score is NaN.
        ModuleNotFoundError: SciPy (extra ``data``) is not installed.
    """
    return _correlation("kendalltau", x, y)


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Compute Spearman's ρ, the correlation of the ranks, as :func:`kendall`."""
    return _correlation("spearmanr", x, y)


def _correlation(name: str, x: ArrayLike, y: ArrayLike) -> float:
    a, b = _without_nan("x", x), _without_nan("y", y)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise ValueError(f"x, y: expected at least two pairs of scores, got shapes {a.shape} and {b.shape}")
    if (a == a[0]).all() or (b == b[0]).all():
        return float("nan")
    try:
        from scipy import stats
    except ModuleNotFoundError:
        text = 'rank correlations need SciPy: pip install "automl_ext[data]"'
        raise ModuleNotFoundError(text, name="scipy") from None
    function: Any = getattr(stats, name)
    return float(function(a, b).statistic)


def _without_nan(name: str, x: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(x, dtype=np.float64)
    if np.isnan(scores).any():
        raise ValueError(f"{name}: expected scores without NaN, got {int(np.isnan(scores).sum())} of them")
    return scores
