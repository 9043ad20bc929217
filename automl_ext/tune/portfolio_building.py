"""Building of a portfolio from earlier studies: the few points whose best covers the known data sets best.

The values of each study are normalized: 0 is its median or worse, 1 its best. The portfolio is built greedily: each
next point is the one that most increases the mean over studies of the best score in the portfolio (Wistuba, Schilling &
Schmidt-Thieme 2015; Feurer et al. 2022, "Auto-Sklearn 2.0", section 3.1).
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence

import numpy as np

from automl_ext.training.errors import UserError
from automl_ext.tune.experience import KnownData, Portfolio
from automl_ext.tune.past_studies import PastStudy, Point, values_of

NEIGHBOURS = 3  # evaluated points from which the score of another point is estimated
KEPT = 3  # best points that are kept of each data set


def build_portfolio(studies: Sequence[PastStudy], size: int = 10, source: str = "") -> Portfolio:
    """Build a portfolio greedily.

    Args:
        studies: studies of one command. Those with meta-features also serve for warm starts. Their empty point stands
            for the command's defaults: it counts as evaluated first, and is not in the portfolio.
        size: maximum number of points; fewer if no further point improves any study.
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
    chosen = greedy(scores, size, defaults)
    known = []
    for row, study in zip(scores, studies, strict=True):
        if study.meta is not None:
            evaluated = {key(trial.point) for trial in study.trials if trial.value is not None and trial.point}
            order = [i for i in np.argsort(-row, kind="stable") if key(points[i]) in evaluated]
            known.append(KnownData(study.meta, [points[i] for i in order[:KEPT]]))
    return Portfolio(commands[0], [points[i] for i in chosen], known, source)


def greedy(scores: np.ndarray, size: int, first: Sequence[int] = ()) -> list[int]:
    """Return the columns of the portfolio, in the order in which they were added.

    Args:
        scores: [S, P] normalized scores of P points in S studies.
        size: maximum number of columns.
        first: columns that are evaluated before the portfolio.

    Returns:
        Columns without ``first``. Once no column improves the mean of the best scores, it ends.
    """
    best, chosen = np.zeros(len(scores)), list[int]()
    for i in first:
        best = np.maximum(best, scores[:, i])
    while len(chosen) < size:
        gains = np.maximum(scores, best[:, None]).mean(0) - best.mean()
        gains[list(first)] = 0.0
        if (chosen or first) and gains.max() <= 1e-9:
            break
        gains[chosen] = -1.0
        chosen.append(int(np.argmax(gains)))
        best = np.maximum(best, scores[:, chosen[-1]])
    return chosen


def score_table(studies: Sequence[PastStudy]) -> tuple[list[Point], np.ndarray]:
    """Return the different points of all studies, and their normalized scores [S, P].

    Where a study did not evaluate a point, its score is the mean of the scores of the three nearest points that it did
    evaluate, weighted by inverse distance.
    """
    points = list({key(trial.point): trial.point for study in studies for trial in study.trials}.values())
    column = {key(point): i for i, point in enumerate(points)}
    table = np.full((len(studies), len(points)), np.nan)
    for row, study in zip(table, studies, strict=True):
        for trial, score in zip(study.trials, normalized(values_of(study)), strict=True):
            i = column[key(trial.point)]
            row[i] = score if math.isnan(row[i]) else max(row[i], score)
    if np.isnan(table).any():
        distances = gower_distances(points)
        for row in table:
            missing = np.isnan(row)
            row[missing] = _estimate(row[~missing], distances[np.ix_(missing, ~missing)])
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

    Numbers differ by the difference of their ranks, scaled to [0, 1]; other values, and a value that only one of two
    points has, by 0 or 1.
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


def _estimate(scores: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Return the weighted mean of the nearest scores. Shapes: scores [E], distances [M, E], result [M]."""
    near = np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]
    weights = 1 / (np.take_along_axis(distances, near, axis=1) + 1e-3)
    return (weights * scores[near]).sum(1) / weights.sum(1)
