"""Costs of architectures, and the choice of one within limits."""

from __future__ import annotations

import json
import random
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from automl_ext.nas.costs import count_macs, latency_ms
from automl_ext.nas.estimators.lower_fidelity import LowerFidelity
from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.search.history import best_within, pareto_front
from automl_ext.nas.search.search import search
from automl_ext.nas.spaces.nasbench201 import Genotype, NASBench201
from automl_ext.nas.strategies.random_search import RandomConfig
from automl_ext.nas.strategies.successive_halving import SuccessiveHalvingConfig
from automl_ext.training.errors import UserError


def test_multiply_adds_are_those_counted_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),  # 8×6 → 4×3 outputs
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 8, 1, groups=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).train()
    assert count_macs(network, (3, 8, 6)) == 12 * 4 * 27 + 12 * 8 * 2 + 5 * 8
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_latency_is_measured_with_one_thread() -> None:
    seen = []

    class Probe(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((torch.get_num_threads(), tuple(x.shape)))
            return x

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert latency_ms(Probe(1, 1), (1, 2, 2), repeats=3) > 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert seen == [(1, (1, 1, 2, 2))] * 8


def dominates(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1] and one[2] >= other[2]


def test_front_of_several_costs_holds_exactly_the_points_that_no_other_one_dominates() -> None:
    rng = random.Random(0)
    for _ in range(50):
        points = [(rng.randrange(4), rng.randrange(4), rng.randrange(4)) for _ in range(12)]
        costs, scores = [[a, b] for a, b, _ in points], [c for *_, c in points]
        front = pareto_front(costs, scores)
        expected = {p for p in points if not any(dominates(other, p) for other in points)}
        assert {points[i] for i in front} == expected
        assert len({points[i] for i in front}) == len(front)


def test_best_within_limits() -> None:
    costs = [{"parameters": n, "macs": m} for n, m in ((10, 5), (20, 5), (30, 1), (20, 9))]
    scores = [0.1, 0.3, 0.9, 0.3]
    assert best_within({}, scores, costs) == [2, 1, 3, 0]
    assert best_within({"parameters": 20}, scores, costs) == [1, 3, 0]
    assert best_within({"parameters": 20, "macs": 5}, scores, costs) == [1, 0]
    assert best_within({"parameters": 10}, scores, costs) == [0]
    with pytest.warns(UserWarning, match="within the limits; the nearest one has 10 parameters .at most 5."):
        assert best_within({"parameters": 5}, scores, costs) == [0]


LABELS = torch.arange(60) % 2
IMAGES = torch.randint(256, (60, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CONFIG = RandomConfig(evaluations=4, finalists=0, epochs=1, channels=2, max_latency_ms=1000.0)


def test_search_measures_costs_and_chooses_within_the_limit(tmp_path: Path) -> None:
    free = search("random", CONFIG, tmp_path / "free", data=(IMAGES, LABELS))
    assert free is not None
    rows = [json.loads(line) for line in (tmp_path / "free/metrics.jsonl").read_text().splitlines()]
    space = NASBench201()
    network = space.build(space.parse(free["genotype"]), in_channels=1, num_classes=2, channels=2, cells=1)
    assert free["macs"] == count_macs(network, (1, 8, 8))
    assert free["score"] == max(row["score"] for row in rows)
    assert all(row["latency_ms"] > 0 for row in rows)
    assert {"genotype", "score", "parameters", "macs", "latency_ms"} == set(free["pareto"][0])
    least = int(min(row["macs"] for row in rows))
    limited = search("random", replace(CONFIG, max_macs=least), tmp_path / "limited", data=(IMAGES, LABELS))
    assert limited is not None
    assert limited["macs"] == least
    assert limited["score"] == max(row["score"] for row in rows if row["macs"] == least)


class ConvolutionsCount(LowerFidelity):
    """The score is the number of convolutions, so the cheapest candidates are not promoted."""

    def evaluate(self, genotype: Genotype, budget: int | None = None, state: Any = None) -> Evaluation:
        return Evaluation(sum("conv" in name for name in genotype.operations), 0.0)


def test_successive_halving_chooses_within_the_limit_at_the_largest_budget_that_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automl_ext.nas.search.evaluators.LowerFidelity", ConvolutionsCount)
    options: dict[str, Any] = {"channels": 2, "epochs": 2, "eta": 2, "rungs": 2, "candidates": 6, "evaluations": 9}
    options["finalists"] = 0

    def found(name: str, **limits: int) -> dict[str, Any]:
        config = SuccessiveHalvingConfig(**options, **limits)
        result = search("successive-halving", config, tmp_path / name, data=(IMAGES, LABELS))
        assert result is not None
        return result

    found("free")
    rows = [json.loads(line) for line in (tmp_path / "free/metrics.jsonl").read_text().splitlines()]
    low, high = (min(row["macs"] for row in rows if row["budget"] == budget) for budget in (1, 2))
    assert low < high
    for budget, limit in ((1, high - 1), (2, high)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = found(str(budget), max_macs=limit)
        assert result["macs"] <= limit
        assert result["score"] == max(row["score"] for row in rows if row["budget"] == budget and row["macs"] <= limit)
        assert result["genotype"] in [point["genotype"] for point in result["pareto"]]
    with pytest.warns(UserWarning, match="no evaluated architecture is within the limits"):
        assert found("nearest", max_macs=low - 1)["macs"] == low


def test_the_table_refuses_data_that_it_does_not_use(tmp_path: Path) -> None:
    for screening in ({}, {"screen": 5, "scores": "scores.csv"}):
        with pytest.raises(
            UserError, match=r"^data: the evaluator table reads no images .*, got 'folder:/no/such'"
        ) as error:
            search("random", RandomConfig(evaluator="table", data="folder:/no/such", **screening), tmp_path / "run")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"^table: "):  # a screening reads the images
        search("random", RandomConfig(evaluator="table", data="folder:x", screen=5, table="x"), tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 20), ("lr", 0.2), ("channels", 4), ("image_size", "8"), ("class_weights", "balanced")],
)
def test_the_table_refuses_options_that_it_does_not_use(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{name}: the evaluator table reads no images and trains no network, got"):
        search("random", RandomConfig(evaluator="table", **{name: value}), tmp_path / "run")


def test_the_summary_names_the_table() -> None:
    from automl_ext.summary import subject_rows

    assert subject_rows(RandomConfig(evaluator="table")) == [
        ("table", "cifar10"),
        ("search space", "nb201"),
        ("seed", "0"),
    ]
    assert ("table", "a.npz") in subject_rows(RandomConfig(evaluator="table", table="a.npz"))
    assert subject_rows(RandomConfig())[0] == ("data", "digits")


def test_latency_and_own_data_need_another_evaluator_than_the_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_latency_ms: the table has no latencies"):
        RandomConfig(evaluator="table", max_latency_ms=1.0)
    with pytest.raises(UserError, match="data: the evaluator table reads no images"):
        search("random", RandomConfig(evaluator="table"), tmp_path / "run", data=(IMAGES, LABELS))
    assert not (tmp_path / "run").exists()
