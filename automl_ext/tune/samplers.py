"""Optuna's samplers and studies in memory."""

from __future__ import annotations

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study


def make_sampler(name: str, seed: int) -> BaseSampler:
    """Create Optuna's sampler by its name, one of :data:`~automl_ext.tune.config.SamplerName`."""
    if name == "random":
        return RandomSampler(seed=seed)
    if name == "gp":
        return GPSampler(seed=seed, warn_independent_sampling=False)
    if name == "cmaes":
        return CmaEsSampler(seed=seed, warn_independent_sampling=False)
    return TPESampler(seed=seed)


def in_memory(name: str, minimize: bool) -> Study:
    """Create an empty study in memory, without a file."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.NopPruner()
    return optuna.create_study(
        storage=optuna.storages.InMemoryStorage(),
        study_name=name,
        direction="minimize" if minimize else "maximize",
        sampler=RandomSampler(seed=0),
        pruner=pruner,
    )
