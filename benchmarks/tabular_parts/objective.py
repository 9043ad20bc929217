"""A cheap objective for judging samplers: the validation loss of one learner on few rows of a data set."""

from __future__ import annotations

import math
import time

import numpy as np
from data_sets import Problem, load
from learners import SPACES, Point, Rows, encoder, validation_loss

from automl_ext.training.search_space import Range, Values

ROUNDS = 500
DEADLINE = 2.0  # CPU seconds of one training; the rounds until then count


class Objective:
    """The validation loss of a learner with given hyperparameters, always on the same rows and with the same seed.

    Args:
        name: name of the data set.
        most: largest number of rows, for training and validation together.
        seed: seed of the choice of rows, of the split and of the trainings.
    """

    def __init__(self, name: str, most: int, seed: int = 0) -> None:
        self.problem: Problem = load(name, seed, most)
        self.seed = seed
        train, valid = map(self.problem.features, (self.problem.train, self.problem.test))
        encode, classes = encoder(train), len(self.problem.classes)
        self.train = Rows(encode(train), self.problem.codes(self.problem.train), classes)
        self.valid = Rows(encode(valid), self.problem.codes(self.problem.test), classes)

    def __call__(self, learner: str, point: Point) -> float:
        deadline = time.monotonic() + DEADLINE
        loss, _ = validation_loss(learner, point, self.train, self.valid, deadline, self.seed, ROUNDS)
        return loss


def random_points(learner: str, count: int, seed: int) -> list[Point]:
    """Draw points uniformly from a learner's space, with four digits. The first is empty: the library's defaults."""
    rng = np.random.default_rng(seed)
    drawn = [{name: _draw(values, rng) for name, values in SPACES[learner].items()} for _ in range(count - 1)]
    return [{}, *drawn]


def _draw(values: Values, rng: np.random.Generator) -> float | int | str | bool | None:
    if not isinstance(values, Range):
        return values.values[int(rng.integers(len(values.values)))]
    low, high = (math.log(values.low), math.log(values.high)) if values.log else (values.low, values.high)
    drawn = float(rng.uniform(low, high))
    drawn = math.exp(drawn) if values.log else drawn
    return round(drawn) if values.whole else float(f"{drawn:.4g}")
