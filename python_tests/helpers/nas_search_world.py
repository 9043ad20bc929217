"""Helpers for tests of search strategies: a table whose accuracies are sums of effects of the operations."""

from __future__ import annotations

import math
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from automl_ext.nas.estimators.benchmark_table import Table, columns
from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.nasbench201 import Genotype, NASBench201
from automl_ext.nas.strategies.strategy import Strategy

SPACE = NASBench201()
COLUMNS = columns("cifar10")
# Effects of "none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3" and "avg_pool_3x3" on each of the edges.
EFFECTS = np.array(
    [[-2, 0, 1, 2, -1], [-2, 1, 0, 2, -1], [0, 1, 2, -2, -1], [0, 2, 1, -1, 1], [2, 1, 0, -1, -2], [0] * 5]
)


def quality(indices: tuple[int, ...]) -> float:
    """Return the quality of a cell, from −7 to 10."""
    return float(sum(EFFECTS[edge, k] for edge, k in enumerate(indices)))


@cache
def values() -> np.ndarray:
    """Return the columns of the table: validation accuracy 60 + quality, test accuracy 70 + quality, 80 to 200 s."""
    numbers = []
    for indices in product(range(5), repeat=6):
        valid, convolutions = 60 + quality(indices), sum(k in (2, 3) for k in indices)
        numbers.append([valid, valid + 5, valid + 10, 70_000 + 1000 * convolutions, 10**7, 80 + 20 * convolutions])
    return np.array(numbers, dtype=float).T


def write(path: Path, dataset: str = "cifar10", **changed: Any) -> Path:
    """Write the table as an npz file, with the columns' names of a data set and some other columns."""
    np.savez(path, **dict(zip(columns(dataset), values(), strict=True)) | changed)
    return path


def table() -> Table:
    return Table(*values().copy())


def score(genotype: Genotype) -> Evaluation:
    """Evaluate a cell: its quality, at a cost of 1 s."""
    return Evaluation(quality(SPACE.encode(genotype)), cost=1.0)


def drive(strategy: Strategy, evaluations: int, fail: frozenset[int] = frozenset()) -> list[Genotype]:
    """Run a strategy and return its candidates. The candidates with indices in ``fail`` diverge."""
    asked = []
    for number in range(evaluations):
        candidate = strategy.ask()
        assert candidate is not None
        asked.append(candidate.genotype)
        failure = Evaluation(-math.inf, 1.0, failed=True)
        strategy.tell(candidate, failure if number in fail else score(candidate.genotype))
    return asked
