"""Linear models of architectures: one column per choice of every decision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.strategy import Screened

Indices = tuple[int, ...]  # an architecture, encoded by the space
Array = NDArray[np.float64]


def one_hot(num_choices: Sequence[int], architectures: Sequence[Sequence[int]]) -> Array:
    """Encode n architectures as rows of zeros and ones, [n, total number of choices]."""
    first = np.cumsum([0, *num_choices])  # column of choice 0 of each decision
    design = np.zeros((len(architectures), first[-1]))
    np.put_along_axis(design, np.array(architectures, dtype=np.int64) + first[:-1], 1.0, axis=1)
    return design


def ridge_regression(design: Array, targets: Array, penalty: float) -> Array:
    """Return w = argmin ‖design w − targets‖² + penalty · ‖w‖²."""
    return np.linalg.solve(design.T @ design + penalty * np.eye(design.shape[1]), design.T @ targets)


def centered(scores: Array) -> Array:
    """Shift scores [n] to mean 0. Failures (−inf) count as the lowest score. Without a finite score, all are 0."""
    finite = np.isfinite(scores)
    if not finite.any():
        return np.zeros(len(scores))
    scores = np.where(finite, scores, scores[finite].min())
    return scores - scores.mean()


def standardized(scores: Array) -> Array:
    """Shift and scale scores [n] to mean 0 and standard deviation 1, failures as in :func:`centered`."""
    scores = centered(scores)
    return scores / max(scores.std(), 1e-12)


class RankModel:
    """A training-free score of any architecture; larger is better.

    For a screened architecture it is its summed rank, standardized over all screened ones. For others it is predicted
    by a ridge regression of these scores on the choices.
    """

    def __init__(self, space: Space[object], screened: Sequence[Screened]) -> None:
        architectures = [tuple(space.encode(candidate.genotype)) for candidate in screened]
        ranks = standardized(np.array([candidate.rank for candidate in screened]))
        self.known = dict(zip(architectures, ranks.tolist(), strict=True))
        weights = ridge_regression(one_hot(space.num_choices, architectures), ranks, 1.0).tolist()
        first = np.cumsum([0, *space.num_choices]).tolist()
        self.weights = [weights[first[d] : first[d + 1]] for d in range(len(space.num_choices))]

    def __call__(self, architecture: Indices) -> float:
        rank = self.known.get(architecture)
        return sum(w[k] for w, k in zip(self.weights, architecture, strict=True)) if rank is None else rank
