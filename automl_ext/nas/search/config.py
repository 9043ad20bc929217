"""What a search by a strategy is told: one configuration per strategy, which also makes the strategy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from automl_ext.nas.retraining.training import LARGEST, MANY, TrainingConfig
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.evolution import Evolution
from automl_ext.nas.strategies.random_search import RandomSearch
from automl_ext.nas.strategies.reinforce import Reinforce
from automl_ext.nas.strategies.renas import ReNAS
from automl_ext.nas.strategies.renas_controller import Controller, HistoryController
from automl_ext.nas.strategies.renas_lstm import LSTMController
from automl_ext.nas.strategies.strategy import Strategy
from automl_ext.nas.strategies.successive_halving import SuccessiveHalving
from automl_ext.training.checks import check_range
from automl_ext.training.seeding import derived_seed

MOST_WORKERS = 256  # processes

ControllerName = Literal["history", "lstm"]
CONTROLLERS: dict[str, Callable[[Space[Any], int], Controller]] = {"history": HistoryController, "lstm": LSTMController}


@dataclass
class SearchConfig(TrainingConfig):
    """What all strategies share: the space, and how its architectures are evaluated.

    "train" trains each of them on the training images and scores it on the validation images, as the options of a
    training say: a short one, since what is wanted is an order. "supernet" trains one supernet and scores all of them
    with its weights; the options are the supernet's then. "table" looks them up in NAS-Bench-201 (no options).
    """

    evaluator: Literal["table", "train", "supernet"] = "train"  # where scores come from
    table: str | None = None  # CSV of NAS-Bench-201; where there is none the environment variable AUTOML_EXT_NB201
    evaluations: int | None = None  # so many; 50 where no budget is given either
    budget: float | None = (
        None  # seconds of evaluation, simulated ones of a table (20000 there, where nothing is given)
    )
    workers: int = 1  # processes that evaluate; a strategy then proposes before it knows the last results
    channels: int = 8
    epochs: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "workers", low=1, high=MOST_WORKERS)
        check_range(self, "evaluations", low=1, high=LARGEST)
        check_range(self, "budget", above=0)
        if self.evaluator == "table" and self.space != "nb201":
            raise ValueError(f"evaluator: the table holds NAS-Bench-201 cells (space nb201), not {self.space}")

    def limits(self) -> tuple[float, float]:
        """Evaluations and seconds."""
        if self.evaluations is None and self.budget is None:
            return (math.inf, 20_000.0) if self.evaluator == "table" else (50, math.inf)
        return self.evaluations or math.inf, self.budget or math.inf

    def strategy(self, space: Space[Any]) -> Strategy:
        raise NotImplementedError


@dataclass
class RandomConfig(SearchConfig):
    """Random search."""

    def strategy(self, space: Space[Any]) -> Strategy:
        return RandomSearch(space, self.seed)


@dataclass
class EvolutionConfig(SearchConfig):
    """Regularised evolution, REA (Real et al. 2019)."""

    population: int = 10  # members; the oldest dies
    sample: int = 3  # of them that compete to be a parent

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "population", "sample", low=1, high=MANY)

    def strategy(self, space: Space[Any]) -> Strategy:
        return Evolution(space, self.seed, self.population, self.sample)


@dataclass
class ReinforceConfig(SearchConfig):
    """A policy of independent choices, trained by REINFORCE."""

    policy_lr: float = 0.01  # of the policy (Adam)
    baseline_decay: float = 0.9  # of the moving average of rewards

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "policy_lr", above=0)
        check_range(self, "baseline_decay", low=0, below=1)

    def strategy(self, space: Space[Any]) -> Strategy:
        return Reinforce(space, self.seed, self.policy_lr, self.baseline_decay)


@dataclass
class ReNASConfig(SearchConfig):
    """ReNAS: evolution whose mutations a controller chooses (Chen et al. 2019)."""

    population: int = 30  # members; the oldest dies
    sample: int = 10  # of them that compete to be a parent
    controller: ControllerName = "history"  # a regression on the whole history, or the paper's LSTM
    fine_tune: int = 1  # epochs of a child, which inherits weights; evaluator "train" only

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "population", "sample", low=1, high=MANY)
        check_range(self, "fine_tune", low=1, high=LARGEST)
        if self.evaluator == "train" and self.fine_tune > self.epochs:
            raise ValueError(f"fine_tune: expected at most {self.epochs} epochs, those of others, got {self.fine_tune}")

    def strategy(self, space: Space[Any]) -> Strategy:
        controller = CONTROLLERS[self.controller](space, derived_seed(self.seed, 1))
        return ReNAS(space, self.seed, controller, self.population, self.sample, inherit=self.evaluator == "train")


@dataclass
class SuccessiveHalvingConfig(SearchConfig):
    """Successive halving (Jamieson & Talwalkar 2016): many trained a little, the best of them longer."""

    epochs: int = 9  # of the last rung; on a table it is 200, after one of 12
    candidates: int = 27  # of the first rung
    eta: int = 3  # of a rung one in eta goes on, to eta times the epochs
    rungs: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "candidates", low=1, high=MANY)
        check_range(self, "eta", low=2, high=LARGEST)
        check_range(self, "rungs", low=1, high=30)  # eta to the power of rungs must not overflow a count
        if self.evaluator == "supernet":
            raise ValueError("evaluator: a supernet knows no budgets, which successive halving needs")
        if self.evaluator == "train" and self.epochs < self.eta ** (self.rungs - 1):
            raise ValueError(f"epochs: expected at least {self.eta ** (self.rungs - 1)}, one in the first rung")

    def strategy(self, space: Space[Any]) -> Strategy:
        rising = [self.epochs // self.eta**k for k in reversed(range(self.rungs))]
        budgets = [12, 200] if self.evaluator == "table" else rising
        return SuccessiveHalving(space, self.seed, self.candidates, budgets, self.eta)


STRATEGIES: dict[str, type[SearchConfig]] = {
    "random": RandomConfig,
    "reinforce": ReinforceConfig,
    "rea": EvolutionConfig,
    "renas": ReNASConfig,
    "successive-halving": SuccessiveHalvingConfig,
}
ALIASES = {"reinas": "renas"}
