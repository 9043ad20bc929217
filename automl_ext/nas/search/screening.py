"""The screening before a search: scores from a file, or a job that computes them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from automl_ext.data.images import ImageData
from automl_ext.nas.data import load_splits
from automl_ext.nas.estimators.training_free.scores import RANK
from automl_ext.nas.screening.score_job import ScoreJob
from automl_ext.nas.screening.screen import draw_candidates, draw_rows, screened, screening_seconds
from automl_ext.nas.screening.table import ScoreTable
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.config import ScreenedSearchConfig, SearchConfig
from automl_ext.nas.strategies.strategy import Screened
from automl_ext.training.errors import UserError
from automl_ext.training.machine.device import choose_device
from automl_ext.training.seeding import derived_seed

STREAM = 2  # random stream of the candidates; the controller of ReNAS has stream 1


class Screening(NamedTuple):
    """A screening, done or to be done."""

    space: Space[Any]
    job: ScoreJob | None  # computes the scores
    table: ScoreTable | None  # scores from a file

    @property
    def epochs(self) -> int:
        return self.job.epochs if self.job else 0

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
