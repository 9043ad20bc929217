"""The final trainings: the best architectures of a search are trained from scratch before one is named."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import nas_search_world as world
import numpy as np
import pytest

from automl_ext.nas.data import load_splits
from automl_ext.nas.estimators.lower_fidelity import LowerFidelity
from automl_ext.nas.evaluation import Evaluation, Scoring
from automl_ext.nas.search.evaluators import EVALUATORS, FINAL_STREAM
from automl_ext.nas.search.history import History
from automl_ext.nas.search.search import search
from automl_ext.nas.spaces.nasbench201 import Genotype
from automl_ext.nas.strategies.evolution import EvolutionConfig
from automl_ext.nas.strategies.random_search import RandomConfig
from automl_ext.nas.strategies.renas import CONTROLLERS, ReNASConfig
from automl_ext.nas.strategies.renas_controller import Change, HistoryController
from automl_ext.nas.strategies.search_options import SearchConfig
from automl_ext.nas.strategies.strategy import Candidate
from automl_ext.training.seeding import derived_seed

SPACE = world.SPACE
TARGET, SHARES = (3, 1, 2, 3, 0, 4), (0.3, 0.25, 0.2, 0.1, 0.1, 0.05)
DRIFT = 0.1  # per generation of inherited weights


def value(genotype: Genotype | str) -> float:
    """Return the value of a cell, from 0 to 1: the shares of the edges that have the right operation."""
    indices = SPACE.encode(SPACE.parse(genotype) if isinstance(genotype, str) else genotype)
    return sum(share for share, k, target in zip(SHARES, indices, TARGET, strict=True) if k == target)


class Drifting:
    """The score of a cell is its value plus ``DRIFT`` per generation of inherited weights; its cost is 1 s."""

    def evaluate(self, genotype: Genotype, budget: int | None = None, state: Any = None) -> Evaluation:
        generation = 0 if state is None else state["generation"] + 1
        measured = {"generation": float(generation)} if generation else {}
        return Evaluation(value(genotype) + DRIFT * generation, 1.0, {"generation": generation}, measured=measured)


@pytest.fixture
def drifting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EVALUATORS, "train", lambda config, space, data: Scoring(Drifting, Drifting))


class Uniform(HistoryController):
    """Mutates uniformly."""

    def choose(self, parent: tuple[int, ...], changes: Sequence[Change]) -> Change:
        return self.rng.choice(changes)


@pytest.mark.parametrize("controller", ["lstm", "history", "uniform"])
@pytest.mark.slow
def test_inherited_scores_do_not_name_the_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drifting: None, controller: Any
) -> None:
    """Means of three seeds. Named by the scores of the search, the winners have means of 0.65 to 0.78."""
    monkeypatch.setitem(CONTROLLERS, "uniform", lambda space, seed, screened, inherit: Uniform(space, seed))
    found = []
    for seed in range(3):
        config = ReNASConfig(evaluations=200, controller=controller, seed=seed)
        result = search("renas", config, tmp_path / str(seed))
        assert result is not None
        assert result["score"] == pytest.approx(value(result["genotype"]))
        found.append(result["score"])
    assert np.mean(found) >= 0.9


@pytest.mark.parametrize(
    ("limits", "evaluations", "finals"),
    [
        ({"evaluations": 40}, 40, 5),
        ({"evaluations": 40, "finalists": 2}, 40, 2),
        ({"evaluations": 40, "finalists": 0}, 40, 0),
        ({"evaluations": 9}, 9, 2),  # at most a quarter
        ({"evaluations": 3}, 3, 0),
        ({"budget": 40.5}, 40, 5),
        ({"budget": 9.5}, 9, 2),
        ({"budget": 3.5}, 3, 0),
    ],
)
def test_final_trainings_count_in_the_budget(
    tmp_path: Path, drifting: None, limits: dict[str, Any], evaluations: int, finals: int
) -> None:
    result = search("random", RandomConfig(**limits), tmp_path / "run")
    assert result is not None
    assert result["evaluations"] == evaluations == result["times"]["evaluation_seconds"]
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert ["final_score" in row for row in rows] == [False] * (evaluations - finals) + [True] * finals
    assert [row["seconds"] for row in rows] == list(range(1, evaluations + 1))
    assert len(result.get("finalists", [])) == finals


def test_finalists_are_trained_equally_from_scratch(tmp_path: Path) -> None:
    """With another seed, also after a search without inheritance; the best one is the result."""
    config = RandomConfig(subset=200, channels=4, epochs=2, evaluations=8)
    result = search("random", config, tmp_path / "run")
    assert result is not None
    again = LowerFidelity(replace(config, seed=derived_seed(0, FINAL_STREAM)), load_splits(config))
    scores = [again.evaluate(SPACE.parse(one["genotype"])).score for one in result["finalists"]]
    assert [one["score"] for one in result["finalists"]] == scores
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    best = sorted((row["score"] for row in rows if "score" in row), reverse=True)
    assert [one["search_score"] for one in result["finalists"]] == best[:2]
    assert result["score"] == max(scores)
    assert result["genotype"] == result["finalists"][scores.index(max(scores))]["genotype"]
    assert result["epochs"] == 2


def test_finalists_compute_different_functions() -> None:
    """Two cells that differ in an edge from a node without inputs are one network; the better one is a finalist."""
    history = History(SPACE)
    for indices, score in (((3, 0, 0, 1, 1, 1), 0.5), ((3, 0, 0, 1, 1, 2), 0.6), ((3, 3, 3, 1, 1, 1), 0.4)):
        history.add(Candidate(SPACE.decode(indices)), Evaluation(score, 1.0))
    assert [entry.score for entry in history.choose({}, 5)] == [0.6, 0.4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("rea", EvolutionConfig(evaluations=12, population=4, sample=2)),
        ("renas", ReNASConfig(evaluations=12, population=3, sample=2)),
        ("renas", ReNASConfig(evaluations=12, population=3, sample=2, controller="history")),
    ],
)
def test_resumed_during_the_final_trainings(tmp_path: Path, name: str, config: SearchConfig) -> None:
    config = replace(config, subset=100, channels=2, epochs=1)

    def outcome(out: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        result = json.loads((tmp_path / out / "result.json").read_text())
        rows = [json.loads(line) for line in (tmp_path / out / "metrics.jsonl").read_text().splitlines()]
        for row in rows:
            del row["cost"], row["seconds"]
        return {key: value for key, value in result.items() if key != "times"}, rows

    assert search(name, config, tmp_path / "whole") is not None
    for stop in (9, 1, 1):  # before the first final training, and after each
        assert search(name, config, tmp_path / "parts", resume="auto", stop_after=stop) is None
    assert search(name, config, tmp_path / "parts", resume="auto") is not None
    assert outcome("parts") == outcome("whole")
    assert len(outcome("parts")[0]["finalists"]) == 3


def test_failed_final_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Drifting):
        failures = 1

        def evaluate(self, genotype: Genotype, budget: int | None = None, state: Any = None) -> Evaluation:
            Failing.failures -= 1
            failed = Failing.failures >= 0
            return Evaluation(-math.inf, 1.0, failed=True) if failed else super().evaluate(genotype)

    monkeypatch.setitem(EVALUATORS, "train", lambda config, space, data: Scoring(Drifting, Failing))
    result = search("random", RandomConfig(evaluations=20), tmp_path / "one")
    assert result is not None
    assert result["failed"] == 1
    assert result["genotype"] == result["finalists"][1]["genotype"]
    Failing.failures = 5
    result = search("random", RandomConfig(evaluations=20), tmp_path / "all")
    assert result is not None
    assert result["failed"] == 5
    assert result["genotype"] == result["finalists"][0]["genotype"]
    assert result["score"] == value(result["genotype"])


def test_scores_of_a_table_are_final(tmp_path: Path) -> None:
    table = str(world.write(tmp_path / "table.npz"))
    result = search("renas", ReNASConfig(evaluator="table", table=table, evaluations=40), tmp_path / "run")
    assert result is not None
    assert "finalists" not in result
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert sum("score" in row for row in rows) == 40


def test_a_table_needs_its_evaluator() -> None:
    with pytest.raises(ValueError, match="table: only --evaluator table reads a table, got the evaluator 'train'"):
        ReNASConfig(table="table.npz")


def test_history_controller_learns_from_differences_under_inheritance() -> None:
    """The effects are those of the choices, whatever the generations of the candidates are."""
    controller = HistoryController(SPACE, 0, ridge=1e-6, inherit=True)
    rng, members = Random(0), []
    for number in range(300):
        if number < 30:
            indices, generation, parent = SPACE.encode(SPACE.random(rng)), 0, None
        else:
            parent = rng.choice(members)
            indices, generation = SPACE.encode(SPACE.mutate(SPACE.decode(parent[0]), rng)), parent[1] + 1
        evaluation = Evaluation(world.quality(indices) + 3.0 * generation, 1.0)
        controller.learn(indices, evaluation, (parent[0], parent[2]) if parent else None)
        members.append((indices, generation, evaluation))
    *effects, rise = np.array(controller.effects())
    effects = np.array(effects).reshape(6, 5)
    centered = world.EFFECTS - world.EFFECTS.mean(axis=1, keepdims=True)
    assert (effects - effects.mean(axis=1, keepdims=True)) / rise * 3.0 == pytest.approx(centered, abs=1e-3)


def test_history_controller_with_failures_under_inheritance() -> None:
    controller = HistoryController(SPACE, 0, inherit=True)
    failed, zero = Evaluation(-math.inf, 1.0, failed=True), (0,) * 6
    controller.learn(zero, failed)
    controller.learn((1, *zero[1:]), failed, (zero, failed))
    assert np.isfinite(controller.effects()).all()
    controller.learn((2, *zero[1:]), Evaluation(0.5, 1.0), (zero, failed))
    controller.learn((2, 1, *zero[2:]), Evaluation(0.7, 1.0), ((2, *zero[1:]), Evaluation(0.5, 1.0)))
    controller.learn((2, 2, *zero[2:]), failed, ((2, *zero[1:]), Evaluation(0.5, 1.0)))
    assert np.isfinite(controller.effects()).all()
