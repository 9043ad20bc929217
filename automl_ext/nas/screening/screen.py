"""Screening for a search: of N candidates, those with the best training-free rank are evaluated first."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from automl_ext.data.images import ImageData
from automl_ext.nas.data import load_splits
from automl_ext.nas.estimators.training_free.scores import RANK
from automl_ext.nas.screening.score_job import ScoreJob, distinct
from automl_ext.nas.screening.score_table import ScoreTable
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.search_options import ScreenedSearchConfig, SearchConfig
from automl_ext.nas.strategies.strategy import Screened
from automl_ext.training.errors import UserError
from automl_ext.training.machine.device import choose_device
from automl_ext.training.seeding import derived_seed

DRAWS = 100  # largest number of draws per candidate until it is a new one


def draw_candidates(
    space: Space[Any], count: int, rng: Random, keep: Callable[[Any], bool] = lambda _: True
) -> list[Any]:
    """Draw ``count`` different architectures uniformly, or list the whole space if it has no more than ``count``.

    If the space has few architectures that ``keep`` accepts, fewer may be returned.

    Args:
        keep: returns whether an architecture is a candidate; by default all are.
    """
    size = math.prod(space.num_choices)
    if count >= size:
        every = map(space.decode, product(*map(range, space.num_choices)))
        return [genotype for genotype in every if keep(genotype)]
    found: dict[tuple[int, ...], Any] = {}
    for _ in range(DRAWS * count):
        if len(found) == count:
            break
        genotype = space.random(rng)
        if keep(genotype):
            found.setdefault(tuple(space.encode(genotype)), genotype)
    return list(found.values())


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


STREAM = 2  # random stream of the candidates; the controller of ReNAS has stream 1


class Screening(NamedTuple):
    """The screening of a search: a job that computes the scores, or a table of scores from a file."""

    space: Space[Any]
    job: ScoreJob | None  # computes the scores
    table: ScoreTable | None  # scores from a file

    def outcome(self) -> tuple[list[Screened], float]:
        """Return the screened architectures, best first, and the seconds to charge; the job must have finished."""
        table = self.table or (self.job.table() if self.job else None)
        assert table is not None
        return screened(table), screening_seconds(self.space, table)


def prepare_screening(config: SearchConfig, space: Space[Any], images: ImageData | None = None) -> Screening | None:
    """Prepare the screening that ``config`` asks for; None if it asks for none.

    Raises:
        UserError: the file of scores or the data cannot be read, or the scores of the file cost more than the budget.
    """
    if not isinstance(config, ScreenedSearchConfig) or config.screen is None:
        return None
    rng, budget = Random(derived_seed(config.seed, STREAM)), config.limits()[1]
    if config.scores is None:
        candidates = draw_candidates(space, config.screen, rng)
        device = choose_device(config.device)
        job = ScoreJob(space, candidates, load_splits(config, images), device, RANK, seed=config.seed, limit=budget)
        return Screening(space, job, None)
    table = draw_rows(ScoreTable.read(Path(config.scores), space), config.screen, rng)
    if (seconds := screening_seconds(space, table)) > budget:
        raise UserError(f"screen: the scores cost {seconds:.0f} s, more than the budget of {budget:g} s")
    return Screening(space, None, table)
