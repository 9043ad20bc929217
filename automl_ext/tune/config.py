"""The options of a tuning run."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import tyro

from automl_ext.training.checks import check_range, check_seed

MOST_WORKERS = 256  # processes
SamplerName = Literal["default", "random", "tpe", "gp", "cmaes", "experience"]
PACKAGES = {"gp": "scipy", "cmaes": "cmaes"}  # that a sampler needs beside Optuna


@dataclass
class TuneConfig:
    """Options of a tuning run: budget (``trials``, ``minutes`` or both), choice of points, and storage of the study.

    Raises:
        ValueError: a number out of range.
    """

    trials: int | None = None
    """Budget: number of trials. With --storage, each tuning run has its own number."""
    minutes: float | None = None
    """Budget: no trial starts after this number of minutes; those that run are finished."""
    sampler: SamplerName = "default"
    """Choice of the points after trial 0, which has the given settings. random, tpe, gp, cmaes: of Optuna. experience:
    the points that did best in earlier studies, and no others. default: those, then tpe."""
    pruner: Literal["hyperband", "none"] = "none"
    """hyperband: end unpromising trials early, by the values that they log on the way."""
    minimize: bool = False
    """Small values are better. By default, large ones are."""
    workers: int = 1
    """Number of trials at the same time, each in a process. The result depends on it: later points are chosen before
    the results of earlier ones are known."""
    storage: str | None = None
    """URL of Optuna's storage, such as sqlite:///study.db or journal:study.log. Several tuning runs with one storage
    share what they learn. Default: study.log in --out."""
    study: str | None = None
    """Name of the study in the storage. Default: the tuned command."""
    seed: tyro.conf.Suppress[int] = 0

    def __post_init__(self) -> None:
        check_range(self, "trials", low=1, high=10**6)
        check_range(self, "minutes", above=0)
        check_range(self, "workers", low=1, high=MOST_WORKERS)
        check_seed(self.seed)


def check_installed(sampler: str) -> None:
    """Check that Optuna and what a sampler needs are installed.

    Raises:
        ModuleNotFoundError: a package is missing; the message names the extra.
    """
    for package in ("optuna", PACKAGES.get(sampler)):
        if package is not None and find_spec(package) is None:
            raise ModuleNotFoundError(f'tune needs {package}: pip install "automl_ext[tune]"', name=package)
