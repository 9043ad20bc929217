"""Building of a portfolio from earlier studies: a few points, at least one of which is good on each known data set.

The values of each study are normalized to scores: 0 is its median or worse, 1 its best. A regression over the points of
a study reduces the noise of its scores, and estimates the scores of points that only other studies evaluated. The
portfolio is built greedily (Wistuba, Schilling & Schmidt-Thieme 2015; Feurer et al. 2022, "Auto-Sklearn 2.0", section
3.1).
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import read_object, short
from automl_ext.tune.portfolio import Point, Portfolio, checked, is_number, read_point
from automl_ext.tune.trials import STATES

LENGTH = 0.3  # Gower's distance at which the correlation of two points' scores is 1/e
NOISE = 0.3  # variance of a score's noise, relative to the variance of scores
MEAN_WEIGHT = 0.3  # of a point's mean score beside what it adds to the best scores


@dataclass(frozen=True)
class PastTrial:
    """One evaluated point of a study.

    Args:
        point: the values of the tuned options, by dotted name.
        value: the objective. None: the trial failed, or was pruned before it had the final value.
    """

    point: Point
    value: float | None


@dataclass(frozen=True)
class PastStudy:
    """The trials of one command on one data set."""

    command: str
    trials: list[PastTrial]
    maximize: bool
    name: str


def read_study(path: Path) -> PastStudy:
    """Read a study from a tuning run's directory or its ``result.json``.

    The file has the keys ``command``, ``trials`` and ``maximize``. Each trial has the keys ``point``, ``value`` and
    ``state``: "finished", "failed" or "pruned".

    Raises:
        UserError: the file is missing, damaged, or not a study; the message names the key.
    """
    file = path / "result.json" if path.is_dir() else path
    content = read_object(file)
    command = checked(file, content, "command", str)
    maximize = checked(file, content, "maximize", bool)
    trials = [_trial(f"{file}, trial {i}", trial) for i, trial in enumerate(checked(file, content, "trials", list))]
    if not any(trial.value is not None for trial in trials):
        raise UserError(f"{file}: expected at least one finished trial, got {len(trials)} without a value")
    return PastStudy(command, trials, maximize, str(path))


def _trial(where: str, content: Any) -> PastTrial:
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected a JSON object, got {short(content)}")
    state = content.get("state")
    if state not in STATES:
        raise UserError(f'{where}: "state": expected one of {", ".join(STATES)}, got {short(state)}')
    value = content.get("value")
    point = read_point(where, content.get("point"))
    if state != "finished":
        return PastTrial(point, None)
    if value is None or not is_number(value):
        raise UserError(f'{where}: "value": expected a finite number of a finished trial, got {short(value)}')
    return PastTrial(point, float(value))


def values_of(study: PastStudy) -> list[float]:
    """Return the values of all trials so that larger is better; −∞ for a trial without a value."""
    sign = 1.0 if study.maximize else -1.0
    return [-math.inf if trial.value is None else sign * trial.value for trial in study.trials]


def build_portfolio(studies: Sequence[PastStudy], size: int = 10, source: str = "") -> Portfolio:
    """Build a portfolio greedily.

    Args:
        studies: studies of one command. A trial with the empty point used the command's defaults. The defaults are
            assumed to be tried before the portfolio: it does not contain them, and its points are chosen for what they
            add to them.
        size: maximum number of points; fewer if the studies have no more.
        source: how the studies were made, for readers of the file.

    Raises:
        UserError: no studies, studies of different commands, or ``size`` below 1.
    """
    commands = sorted({study.command for study in studies})
    if len(commands) != 1:
        raise UserError(f"portfolio: expected studies of one command, got {', '.join(map(repr, commands)) or 'none'}")
    if size < 1:
        raise UserError(f"size: expected at least 1, got {size}")
    points, scores = score_table(studies)
    defaults = [i for i, point in enumerate(points) if not point]
    worked = {key(trial.point) for study in studies for trial in study.trials if trial.value is not None}
    left_out = [i for i, point in enumerate(points) if key(point) not in worked]
    chosen = greedy(scores, size, defaults, left_out)
    return Portfolio(commands[0], [points[i] for i in chosen], source)


def greedy(scores: np.ndarray, size: int, first: Sequence[int] = (), left_out: Sequence[int] = ()) -> list[int]:
    """Return the columns of the portfolio, in the order in which they were added.

    The next column has the highest sum of two numbers: the increase of the best score so far, averaged over the
    studies, and ``MEAN_WEIGHT`` times its mean score. The second number matters if there are few studies: a point that
    was good on most of them is a safer choice for a new data set than the best point of a single study.

    Args:
        scores: [S, P] scores of P points in S studies.
        size: maximum number of columns.
        first: columns that are evaluated before the portfolio.
        left_out: other columns that are not chosen.
    """
    best, chosen = np.zeros(len(scores)), list[int]()
    for i in first:
        best = np.maximum(best, scores[:, i])
    free = np.ones(scores.shape[1], dtype=bool)
    free[[*first, *left_out]] = False
    while len(chosen) < size and free.any():
        value = np.maximum(scores, best[:, None]).mean(0) + MEAN_WEIGHT * scores.mean(0)
        chosen.append(int(np.argmax(np.where(free, value, -np.inf))))
        free[chosen[-1]] = False
        best = np.maximum(best, scores[:, chosen[-1]])
    return chosen


def score_table(studies: Sequence[PastStudy]) -> tuple[list[Point], np.ndarray]:
    """Return the different points of all studies, and their scores [S, P] after the regression.

    The regression of each study is the posterior mean of a Gaussian process with the correlation exp(−d/``LENGTH``), d
    being Gower's distance. The empty point, which stands for the defaults, keeps its own score.
    """
    points = list({key(trial.point): trial.point for study in studies for trial in study.trials}.values())
    column = {key(point): i for i, point in enumerate(points)}
    correlation = np.exp(-gower_distances(points) / LENGTH)
    table = np.full((len(studies), len(points)), np.nan)
    for row, study in zip(table, studies, strict=True):
        for trial, score in zip(study.trials, normalized(values_of(study)), strict=True):
            i = column[key(trial.point)]
            row[i] = score if math.isnan(row[i]) else max(row[i], score)
        own = [int(i) for i in np.flatnonzero(~np.isnan(row))]
        scores, mean = row[own], row[own].mean()
        weights = np.linalg.solve(correlation[np.ix_(own, own)] + NOISE * np.eye(len(own)), scores - mean)
        row[:] = mean + correlation[:, own] @ weights
        for i, score in zip(own, scores, strict=True):
            row[i] = row[i] if points[i] else score
    return points, table


def normalized(values: Sequence[float]) -> list[float]:
    """Return scores from 0, the median of the finite values or worse, to 1, the best value. Larger values are better.

    A trial without a value (−∞) scores 0. If the best value is also the median, each such value scores 1.
    """
    finite = [value for value in values if value > -math.inf]
    middle, best = statistics.median(finite), max(finite)
    if best == middle:
        return [float(value == best) for value in values]
    return [max(0.0, (value - middle) / (best - middle)) for value in values]


def gower_distances(points: Sequence[Point]) -> np.ndarray:
    """Return the distances [P, P] between points (Gower 1971): the mean over their options.

    The distance of two numbers is the difference of their ranks, scaled to [0, 1]. That of other values is 0 if they
    are equal, else 1; it is 1 if only one of the points has a value.
    """
    total = np.zeros((len(points), len(points)))
    names = sorted({name for point in points for name in point})
    for name in names:
        present = [i for i, point in enumerate(points) if name in point]
        values = [points[i][name] for i in present]
        apart = np.ones(len(points), dtype=bool)
        apart[present] = False
        one = (apart[:, None] != apart[None, :]).astype(float)
        if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
            _, ranks = np.unique(np.array(values, dtype=float), return_inverse=True)
            one[np.ix_(present, present)] = np.abs(ranks[:, None] - ranks[None, :]) / max(1, ranks.max())
        else:
            _, codes = np.unique([json.dumps(value) for value in values], return_inverse=True)
            one[np.ix_(present, present)] = codes[:, None] != codes[None, :]
        total += one
    return total / max(1, len(names))


def key(point: Point) -> str:
    """Return a string that is equal for equal points."""
    return json.dumps(point, sort_keys=True)
