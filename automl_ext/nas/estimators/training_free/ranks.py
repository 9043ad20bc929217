"""The combination of scores: the sum of the logarithms of ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from automl_ext.training.rank_correlation import mean_ranks


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
