"""ReNAS with screened candidates: the model of ranks, and what the controller learns from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import nas_search_world as world
import numpy as np
import pytest

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.strategies.linear import RankModel, one_hot, ridge_regression, standardized
from automl_ext.nas.strategies.renas import ReNAS
from automl_ext.nas.strategies.renas_controller import HistoryController
from automl_ext.nas.strategies.strategy import Screened

SPACE = world.SPACE


def ranked(count: int, seed: int = 0) -> list[Screened]:
    """Candidates whose rank is their quality."""
    rng = Random(seed)
    cells = [SPACE.random(rng) for _ in range(count)]
    return [Screened(cell, world.quality(SPACE.encode(cell))) for cell in cells]


def test_ridge_regression_and_one_hot() -> None:
    assert one_hot((2, 3), [(1, 0), (0, 2)]).tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    design, targets = np.array([[1.0], [2.0]]), np.array([1.0, 3.0])
    assert ridge_regression(design, targets, 2.0) == pytest.approx([(1 + 6) / (1 + 4 + 2)])
    assert standardized(np.array([-math.inf, 1.0, 3.0])) == pytest.approx([-(0.5**0.5), -(0.5**0.5), 2**0.5])
    assert standardized(np.array([-math.inf])).tolist() == [0.0]


def test_rank_model_knows_screened_cells_and_predicts_others() -> None:
    screened = ranked(400)
    model = RankModel(SPACE, screened)
    values = np.array([candidate.rank for candidate in screened])
    expected = (values - values.mean()) / values.std()
    assert [model(tuple(SPACE.encode(c.genotype))) for c in screened] == pytest.approx(expected)
    others = [c for c in ranked(200, seed=1) if tuple(SPACE.encode(c.genotype)) not in model.known]
    predicted = [model(tuple(SPACE.encode(c.genotype))) for c in others]
    assert np.corrcoef(predicted, [c.rank for c in others])[0, 1] > 0.99  # quality is a sum over edges


def changes_from(parent: Sequence[int]) -> list[tuple[int, int]]:
    return [(d, k) for d in range(6) for k in range(5) if k != parent[d]]


def test_the_controller_follows_the_rank_as_far_as_it_agrees_with_the_scores() -> None:
    parent = (0, 1, 0, 2, 1, 0)
    for sign in (1, -1):
        screened = [candidate._replace(rank=sign * candidate.rank) for candidate in ranked(400)]
        controller = HistoryController(SPACE, 0, explore=0.0, temperature=0.05, screened=screened)
        for candidate in ranked(20, seed=2):
            indices = tuple(SPACE.encode(candidate.genotype))
            controller.learn(indices, Evaluation(world.quality(indices), 1.0))
        assert np.sign(controller.effects()[-1]) == sign
        gains = []
        for _ in range(40):
            d, k = controller.choose(parent, changes_from(parent))
            gains.append(world.quality((*parent[:d], k, *parent[d + 1 :])) - world.quality(parent))
        assert np.mean(gains) > 2  # the mean change loses


def test_without_screened_candidates_the_controller_has_no_column_for_the_rank() -> None:
    controller = HistoryController(SPACE, 0)
    controller.learn((0,) * 6, Evaluation(1.0, 1.0))
    assert len(controller.effects()) == 30


def test_renas_proposes_no_screened_cell_twice() -> None:
    screened = sorted(ranked(30), key=lambda candidate: -candidate.rank)
    strategy = ReNAS(SPACE, 0, HistoryController(SPACE, 0, screened=screened), 10, 3, screened=screened)
    asked = world.drive(strategy, 60)
    assert asked[:10] == [candidate.genotype for candidate in screened[:10]]
    assert len({*asked}) == 60
