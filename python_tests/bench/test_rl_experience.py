"""The benchmark that judges portfolios of agents: by lookup, on an environment that the portfolio does not know."""

from __future__ import annotations

import importlib
import itertools
import statistics
from types import ModuleType

import pytest
from docs_tables.text import ROOT

pytest.importorskip("tyro", reason="the package's tuning needs tyro")
from automl_ext.tune.past_studies import PastStudy, PastTrial

FOLDER = ROOT / "benchmarks" / "tuning"
POINTS = [{}, *({"lr": 0.1 * i} for i in range(1, 10))]


@pytest.fixture
def experience(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if not FOLDER.exists():
        pytest.skip("the package is tested without its sources")
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("rl_experience")


def study(name: str, values: list[float | None]) -> PastStudy:
    trials = [PastTrial(point, value) for point, value in zip(POINTS, values, strict=True)]
    return PastStudy("train a2c", None, trials, True, name)


def test_a_portfolio_is_compared_with_random_points_after_the_defaults(experience: ModuleType) -> None:
    left_out = [2.0, 0.0, 5.0, 1.0, None, 3.0, 7.0, 0.5, 9.0, 0.2]
    known = study("known", [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])  # the second point is its best
    other = study("other", left_out)
    row = experience.judged([known, other], other, "other")
    assert row["defaults"] == 2.0
    assert row["portfolio_1"] == 5.0
    values = [0.0 if value is None else value for value in left_out[1:]]  # a failed trial counts as the worst
    drawn = [max(2.0, *chosen) for chosen in itertools.combinations(values, 4)]
    assert row["random_4"] == pytest.approx(statistics.fmean(drawn), abs=0.005)
    assert row["best"] == 9.0
