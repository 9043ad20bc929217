"""Screening for a search: of N candidates, those with the best training-free rank are evaluated first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from automl_ext.nas.screening.score_job import distinct
from automl_ext.nas.screening.table import ScoreTable
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.strategy import Screened

DRAWS = 100  # largest number of draws per candidate until it is a new one


def draw_candidates(
    space: Space[Any], count: int, rng: Random, keep: Callable[[Any], bool] = lambda _: True
) -> list[Any]:
    """Draw ``count`` different architectures uniformly, or list the whole space if it has no more than ``count``.

    A space in which new architectures are rare may return fewer.

    Args:
        keep: whether an architecture is a candidate; by default all are.
    """
    size = math.prod(space.num_choices)
    if count >= size:
        every = (space.decode(indices) for indices in _all_indices(space.num_choices))
        return [genotype for genotype in every if keep(genotype)]
    found: dict[tuple[int, ...], Any] = {}
    for _ in range(DRAWS * count):
        if len(found) == count:
            break
        genotype = space.random(rng)
        if keep(genotype):
            found.setdefault(tuple(space.encode(genotype)), genotype)
    return list(found.values())


def _all_indices(num_choices: Sequence[int]) -> list[list[int]]:
    indices: list[list[int]] = [[]]
    for choices in num_choices:
        indices = [[*start, k] for start in indices for k in range(choices)]
    return indices


def screened(table: ScoreTable) -> list[Screened]:
    """Return the architectures of a table, the best rank first. Equal ranks keep their order."""
    ranks = table.rank().tolist()
    order = sorted(range(len(ranks)), key=lambda i: -ranks[i])
    return [Screened(table.genotypes[i], ranks[i]) for i in order]


def screening_seconds(space: Space[Any], table: ScoreTable) -> float:
    """Return the CPU-seconds of a table's scores; architectures that compute the same function count once."""
    return sum({distinct(space, g): float(s) for g, s in zip(table.genotypes, table.seconds, strict=True)}.values())


def draw_rows(table: ScoreTable, count: int, rng: Random) -> ScoreTable:
    """Draw ``count`` rows of a table uniformly, without replacement, or all if there are no more."""
    n = len(table.genotypes)
    return table if count >= n else table.take(rng.sample(range(n), count))
