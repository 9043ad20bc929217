"""The configuration shared by all searches with a strategy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.strategy import Screened, Strategy
from automl_ext.nas.training.training_options import LARGEST, MANY, TrainingConfig
from automl_ext.training.checks import MOST_WORKERS, check_range

EPOCHS, LONGER = 4, {"curve": 12, "supernet": 100}  # default length, and that of evaluators that need more
TRAINING = ("train", "curve", "morphism")  # evaluators whose finalists are trained again
HALVING = ("curve", "morphism")  # evaluators that divide the epochs in two halves
Config = TypeVar("Config", bound="SearchConfig")


@dataclass
class SearchConfig(TrainingConfig):
    """Options that all strategies share: the search space and the evaluation of its architectures.

    Evaluator "train" trains each architecture on the training images and scores it on the validation images; the
    options of a training apply. A short training is often enough, because only the ranking of the architectures
    matters. Evaluator "curve" trains each one for half of the epochs and extrapolates its learning curve to the last
    one. Evaluator "morphism" trains each cell of NAS-Bench-201 with half of the channels for half of the epochs, then
    widens it and trains it on. In the end, the best ``finalists`` are trained again, with all epochs. Evaluator
    "supernet" trains one supernet and scores all architectures with its weights; the options then apply to the
    supernet. Evaluator "table" looks architectures up in the table of NAS-Bench-201 and needs no training options.
    """

    evaluator: str = "train"  # Source of the scores: train, curve, morphism, supernet or table.
    table: str | None = None  # Table of NAS-Bench-201, an npz file. Default: cifar10, part of the package.
    evaluations: int | None = None  # Largest number of evaluations. Default: 50 if no budget is given either.
    budget: float | None = None
    """CPU-seconds of evaluation, on a GPU seconds; simulated with a table. Default with a table: 20,000."""
    finalists: int = 5
    """Number of the best architectures that are trained again, from scratch and with another seed; the best of these is
    the result. Evaluators "train", "curve" and "morphism" only. They take at most a quarter of the evaluations and of
    the budget."""
    workers: int = 1  # Number of evaluations at a time. With several, proposals precede some earlier results.
    max_parameters: int | None = None  # Choose the best architecture with at most this number of parameters.
    max_macs: int | None = None  # Choose the best architecture with at most this number of multiply-adds per image.
    max_latency_ms: float | None = None  # Measure the latency (one image, one CPU thread); choose within this limit.
    channels: int = 8  # Channels of the first stage.
    epochs: int | None = None  # type: ignore[assignment]
    """Epochs of each training, or of the supernet. Default: 4, for curves 12, for a supernet 100."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "workers", low=1, high=MOST_WORKERS)
        check_range(self, "finalists", low=0, high=MANY)
        check_range(self, "evaluations", low=1, high=LARGEST)
        check_range(self, "budget", "max_latency_ms", above=0)
        check_range(self, "max_parameters", "max_macs", low=1, high=10**15)
        if self.table is not None and self.evaluator != "table":
            raise ValueError(f"table: only --evaluator table reads a table, got the evaluator {self.evaluator!r}")
        if self.evaluator in HALVING and self.training_epochs < 2:
            raise ValueError(
                f"epochs: the evaluator {self.evaluator} halves them, expected at least 2, got {self.training_epochs}"
            )
        if self.evaluator == "table" and self.max_latency_ms is not None:
            raise ValueError("max_latency_ms: the table has no latencies; expected an evaluator that trains networks")
        if self.evaluator == "table" and self.space != "nb201":
            raise ValueError(f"evaluator: the table holds NAS-Bench-201 cells (space nb201), not {self.space}")

    @property
    def training_epochs(self) -> int:
        """The number of epochs of each training, or of the supernet."""
        if self.epochs is not None:
            return self.epochs
        return LONGER.get(self.evaluator, EPOCHS)

    def resolved(self: Config) -> Config:
        """Return the configuration as runs store it: ``epochs`` is :attr:`training_epochs`, not None."""
        return replace(self, epochs=self.training_epochs)

    def unread(self) -> list[str]:
        """Return the options that nothing reads: with the evaluator table, those of images and trainings."""
        if self.evaluator != "table":
            return []
        return [field.name for field in fields(TrainingConfig) if field.name not in ("space", "seed", "device")]

    def cost_limits(self) -> dict[str, float]:
        """Return the largest costs of the architecture to choose, by name."""
        limits = {"parameters": self.max_parameters, "macs": self.max_macs, "latency_ms": self.max_latency_ms}
        return {name: limit for name, limit in limits.items() if limit is not None}

    def limits(self) -> tuple[float, float]:
        """Return the largest number of evaluations and the largest number of seconds."""
        if self.evaluations is None and self.budget is None:
            return (math.inf, 20_000.0) if self.evaluator == "table" else (50, math.inf)
        return self.evaluations or math.inf, self.budget or math.inf

    def final_trainings(self) -> int:
        """Return the number of final trainings that the largest number of evaluations allows."""
        return int(min(self.finalists, self.limits()[0] / 4)) if self.evaluator in TRAINING else 0

    def strategy(self, space: Space[Any]) -> Strategy:
        """Create the strategy. Every strategy's configuration implements it."""
        raise NotImplementedError


@dataclass
class ScreenedSearchConfig(SearchConfig):
    """A search that can start from candidates that were screened by training-free scores (automl_ext.nas.screening).

    Screening scores ``screen`` candidates, drawn uniformly; the strategy evaluates the best of them first. Its
    CPU-seconds count in the budget.
    """

    screen: int | None = None  # Number of candidates to screen by training-free scores, at most the whole space.
    scores: str | None = None  # File that `automl-ext score` wrote, to screen from. Default: scores are computed.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "screen", low=1, high=MANY)
        if self.scores is not None and self.screen is None:
            raise ValueError("scores: needs --screen N, the number of candidates to take from the file")

    def unread(self) -> list[str]:
        """Return the options that nothing reads. A screening without a file of scores reads images."""
        screens = self.screen is not None and self.scores is None
        images = ("data", "subset", "image_size", "image_mode") if screens else ()
        return [name for name in super().unread() if name not in images]

    def strategy(self, space: Space[Any], screened: Sequence[Screened] = ()) -> Strategy:
        """Create the strategy, which evaluates ``screened`` candidates first, best first."""
        raise NotImplementedError
