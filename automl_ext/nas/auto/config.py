"""The configuration of ``search auto``."""

from __future__ import annotations

from dataclasses import dataclass

from automl_ext.nas.training.options import MANY, TrainingConfig
from automl_ext.training.checks import MOST_WORKERS, check_range


@dataclass
class AutoConfig(TrainingConfig):
    """Search within a budget: training-free screening, short trainings, full trainings of the best, an ensemble."""

    minutes: float = 10.0  # Budget of the search in CPU-minutes; the baselines take about as long again.
    candidates: int = 1000  # Largest number of architectures that are screened.
    finalists: int = 8  # Largest number of architectures that are trained fully, the largest one of the space included.
    baselines: bool = True  # Also train random architectures for as long as the search took.
    rounds: int = 50  # Number of rounds of the ensemble's greedy selection.
    workers: int = 1  # Number of tasks that are done at the same time; the budget counts the seconds of all of them.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "minutes", above=0)
        check_range(self, "workers", low=1, high=MOST_WORKERS)
        check_range(self, "candidates", low=2, high=MANY)
        check_range(self, "finalists", low=2, high=100)
        check_range(self, "rounds", low=1, high=MANY)
