"""Compares an architecture with random ones that are trained in the same way."""

from __future__ import annotations

import importlib.util
import math
import statistics
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from automl_ext.nas.data import prepare
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.training.network_pictures import draw_comparison, run_title
from automl_ext.nas.training.network_training import NetworkTraining
from automl_ext.nas.training.result import KEYS, measure
from automl_ext.nas.training.series import Trainings, train_series
from automl_ext.nas.training.training_options import MANY, TrainingConfig
from automl_ext.training.checks import MOST_WORKERS, check_range
from automl_ext.training.config import to_dict


@dataclass
class CompareConfig(TrainingConfig):
    """Configuration of a comparison of random architectures, and optionally a given one, trained in the same way."""

    genotype: str | None = None  # Architecture to train first; none by default.
    random_cells: int = 5  # Number of random architectures; the seed decides which.
    # Number of networks that are trained at the same time. It divides the threads (OMP_NUM_THREADS); results are equal
    # for an equal number of threads per process.
    workers: int = field(default=1, metadata={"without_effect": True})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "workers", low=1, high=MOST_WORKERS)
        check_range(self, "random_cells", low=1, high=MANY)


class CellTrainings(Trainings):
    """The trainings of the architectures."""

    prefix = "cell"

    def measure(self, number: int, training: NetworkTraining) -> dict[str, Any]:
        result = measure(training, self.genotypes[number], self.splits)
        return {key: value for key, value in result.items() if key not in KEYS}  # large if there are many classes


def compare(
    config: CompareConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
    data: Any = None,
) -> dict[str, Any] | None:
    """Train ``config.genotype`` and ``config.random_cells`` uniformly drawn architectures in the same way.

    If matplotlib is installed, ``comparison.png`` is drawn too: test accuracy against the number of parameters.

    Arguments are those of :func:`~automl_ext.nas.training.retrain.retrain`; ``stop_after`` counts the epochs of all
    networks together.

    Returns:
        The contents of ``result.json``; None if the run was interrupted. ``found`` is the result of ``config.genotype``
        as :func:`~automl_ext.nas.training.retrain.retrain` returns it, without the entries on the classes; None if no
        genotype is given. ``random`` is a list of such results. ``random_mean``, ``random_median`` and ``random_std``
        are statistics of their test accuracies; the standard deviation divides by n − 1 and is None for n = 1. A
        uniformly drawn cell may have no path from input to output (2 % of NAS-Bench-201): it lowers the mean but hardly
        the median.

    Raises:
        UserError: the data, the genotype, the configuration or the run directory is invalid.
    """
    space = space or spaces.space(config.space)
    rng = Random(config.seed)
    genotypes = [space.random(rng) for _ in range(config.random_cells)]
    if config.genotype is not None:
        genotypes.insert(0, spaces.parse_genotype(space, config.genotype))
    config, splits = prepare(config, data)
    trainings = CellTrainings(config, space, genotypes, splits)
    summary = partial(summarize, has_found=config.genotype is not None)
    result = train_series(out, "compare", trainings, summary, resume, stop_after)
    if result is not None and importlib.util.find_spec("matplotlib"):
        draw_comparison(result, Path(out), run_title("compare", to_dict(config), result))
    return result


def summarize(results: list[dict[str, Any]], has_found: bool) -> dict[str, Any]:
    """Return the contents of ``result.json``: the results, and statistics over the random architectures.

    Args:
        results: one result per trained architecture.
        has_found: whether the first result belongs to ``config.genotype``; the others belong to random architectures.
    """
    found, drawn = (results[0], results[1:]) if has_found else (None, results)
    accuracies = [r["test_accuracy"] for r in drawn]
    return {
        "found": found,
        "random": drawn,
        "random_median": statistics.median(accuracies),
        "random_mean": math.fsum(accuracies) / len(accuracies),
        "random_std": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
    }
