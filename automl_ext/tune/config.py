"""The options of a tuning run."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

import tyro

from automl_ext.training.checks import MOST_WORKERS, check_range, check_seed

SamplerName = Literal["default", "random", "tpe", "gp", "cmaes", "experience"]
PrunerName = Literal["hyperband", "none"]
PACKAGES = {"gp": "scipy", "cmaes": "cmaes"}  # that a sampler needs beside Optuna


@dataclass
class TuneConfig:
    """Options of a tuning run: budget (``trials``, ``minutes`` or both), choice of points, and storage of the study.

    Raises:
        ValueError: a number out of range, or an unknown sampler or pruner.
    """

    trials: int | None = None
    """Budget: number of trials. With --storage, each tuning run has its own number."""
    minutes: float | None = None
    """Budget: no trial starts after this number of minutes; those that run are finished."""
    sampler: SamplerName = "default"
    """Choice of the points after trial 0, which has the given settings. random, tpe, gp, cmaes: samplers of Optuna.
    experience: the package's portfolio of points that did well on other data sets, and no others. default: the
    portfolio if the command has one, then tpe."""
    pruner: PrunerName = "none"
    """hyperband: end unpromising trials early, by comparing the values of the objective that trials log at equal steps
    of their trainings."""
    minimize: bool = False
    """Small values are better. By default, large ones are."""
    workers: int = 1
    """Number of trials at the same time, each in a process. The result depends on it: a point is chosen while earlier
    trials are still running."""
    storage: str | None = None
    """URL of Optuna's storage, such as sqlite:///study.db or journal:study.log. The samplers of several tuning runs
    with one storage learn from the trials of all. Default: study.log in --out."""
    study: str | None = None
    """Name of the study in the storage. Default: the tuned command."""
    seed: tyro.conf.Suppress[int] = 0

    def __post_init__(self) -> None:
        for name, known in (("sampler", get_args(SamplerName)), ("pruner", get_args(PrunerName))):
            if (given := getattr(self, name)) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {given!r}")
        check_range(self, "trials", low=1, high=10**6)
        check_range(self, "minutes", above=0)
        check_range(self, "workers", low=1, high=MOST_WORKERS)
        check_seed(self.seed)


def check_installed(sampler: str) -> None:
    """Check that Optuna and the packages that a sampler needs are installed.

    Raises:
        ModuleNotFoundError: a package is missing; the message names the extra.
    """
    for package in ("optuna", PACKAGES.get(sampler)):
        if package is not None and find_spec(package) is None:
            raise ModuleNotFoundError(f'tune needs {package}: pip install "automl_ext[tune]"', name=package)
