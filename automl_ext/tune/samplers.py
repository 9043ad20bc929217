"""The choice of points by Optuna's samplers, whose random numbers depend on the seed and the number of the trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from automl_ext.training.seeding import derived_seed
from automl_ext.tune.space import Distributions


def make_sampler(name: str, seed: int) -> BaseSampler:
    """Create Optuna's sampler of a name in :data:`~automl_ext.tune.config.SamplerName`."""
    if name == "random":
        return RandomSampler(seed=seed)
    if name == "gp":
        return GPSampler(seed=seed, warn_independent_sampling=False)
    if name == "cmaes":
        return CmaEsSampler(seed=seed, warn_independent_sampling=False)
    return TPESampler(seed=seed)


class SeededSampler(BaseSampler):
    """Proposes the points ``first``, then those of a sampler that is created for each trial with its own seed.

    So a proposal depends on the trials before it and on ``index``, not on how many were proposed by this object.

    Attributes:
        index: number of the trial to propose; set it before each proposal.
    """

    def __init__(self, name: str, seed: int, space: Distributions, first: Sequence[dict[str, Any]]) -> None:
        self.name, self.seed, self.space, self.first = name, seed, space, first
        self.index = 0
        self.sampler: BaseSampler = RandomSampler(seed=seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.sampler = make_sampler(self.name, derived_seed(self.seed, self.index))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if self.index < len(self.first):
            return self.first[self.index]
        together = self.sampler.infer_relative_search_space(study, trial)
        found = self.sampler.sample_relative(study, trial, together)
        return {
            name: found[name] if name in found else self.sampler.sample_independent(study, trial, name, values)
            for name, values in self.space.items()
        }

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)


def direction_of(minimize: bool) -> StudyDirection:
    """Return Optuna's name of a direction."""
    return StudyDirection.MINIMIZE if minimize else StudyDirection.MAXIMIZE


def in_memory(name: str, minimize: bool, sampler: BaseSampler | None = None) -> Study:
    """Create an empty study that no file holds."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.NopPruner()
    return optuna.create_study(
        storage=optuna.storages.InMemoryStorage(),
        study_name=name,
        direction=direction_of(minimize),
        sampler=sampler or RandomSampler(seed=0),
        pruner=pruner,
    )
