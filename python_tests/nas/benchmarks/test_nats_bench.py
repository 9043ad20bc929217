"""The protocol of NATS-Bench: costs and reported accuracy of a run, resume, workers, insufficient budgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nas_search_world as world
import numpy as np
import pytest

from automl_ext.nas.benchmarks.nats_bench import ALGORITHMS, NASBenchConfig, Simulation, nas_bench
from automl_ext.nas.spaces.nasbench201 import Genotype
from automl_ext.nas.strategies.random_search import RandomSearch
from automl_ext.nas.strategies.renas import ReNASConfig
from automl_ext.nas.strategies.renas_controller import HistoryController
from automl_ext.nas.strategies.renas_lstm import LSTMController
from automl_ext.nas.strategies.strategy import Candidate
from automl_ext.training.errors import UserError

COST = 80 + 2.5 * (0.5 + 0.085 * 80 / 12)  # of a cell without convolutions, in seconds
HIGHEST_COST = 200 + 2.5 * (0.5 + 0.085 * 200 / 12)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(world.write(tmp_path_factory.mktemp("table") / "table.npz"))


def without_cpu_seconds(result: dict[str, Any] | None) -> dict[str, Any]:
    assert result is not None
    return {name: {k: v for k, v in row.items() if k != "cpu_seconds"} for name, row in result.items()}


CELL = Genotype(("none",) + ("skip_connect",) * 5)


class Same(RandomSearch):
    """Always proposes the same cell."""

    def ask(self) -> Candidate:
        return Candidate(CELL)


@pytest.mark.parametrize(("budget", "evaluations"), [(3 * COST + 0.01, 3), (3 * COST - 0.01, 2)])
def test_revisits_cost_and_the_evaluation_over_budget_does_not_count(budget: float, evaluations: int) -> None:
    simulation = Simulation(NASBenchConfig(budget=budget), world.table())
    test, count, seconds, curve = simulation.run(Same(world.SPACE, 0))
    assert count == evaluations
    assert seconds == pytest.approx(evaluations * COST)
    assert test == 70 + world.quality(world.SPACE.encode(CELL))
    known = ~np.isnan(curve)
    first = np.flatnonzero(known)[0]
    assert first == np.ceil(COST / budget * len(curve)) - 1
    assert known[first:].all()
    assert set(np.array(curve)[known]) == {test}


def test_reported_accuracy_is_that_of_the_best_validation_accuracy() -> None:
    flipped = world.table()
    flipped.test_200[:] = 100 - flipped.valid_12  # the reverse ranking
    simulation = Simulation(NASBenchConfig(budget=5000), flipped)
    seen = []
    strategy = RandomSearch(world.SPACE, 0)
    strategy.tell = lambda candidate, evaluation: seen.append(evaluation.score)  # type: ignore[method-assign]
    assert simulation.run(strategy)[0] == 100 - max(seen)


@pytest.mark.slow
def test_results_depend_on_neither_workers_nor_interruption(tmp_path: Path, table: str) -> None:
    settings: dict[str, Any] = {"table": table, "runs": 12, "algorithms": ("random", "rea"), "budget": 3000}
    whole = nas_bench(NASBenchConfig(**settings, workers=2), tmp_path / "whole")
    config = NASBenchConfig(**settings, workers=1)
    assert nas_bench(config, tmp_path / "parts", stop_after=1) is None
    parts = nas_bench(NASBenchConfig(**settings, workers=2), tmp_path / "parts", resume="auto")
    assert without_cpu_seconds(parts) == without_cpu_seconds(whole)
    assert whole == json.loads((tmp_path / "whole" / "result.json").read_text())
    assert whole is not None
    assert set(whole["rea"]) == {"mean", "std", "runs", "evaluations", "seconds", "cpu_seconds"}
    assert whole["random"]["over_rea"]["mean"] == pytest.approx(whole["random"]["mean"] - whole["rea"]["mean"])
    assert whole["rea"]["runs"] == 12
    assert (tmp_path / "whole" / "nas_bench.png").stat().st_size > 1000


@pytest.mark.slow
def test_every_algorithm_beats_the_mean_cell(tmp_path: Path, table: str) -> None:
    names = tuple(name for name in ALGORITHMS if not name.endswith("+screen"))  # those need a file of scores
    result = nas_bench(NASBenchConfig(table=table, runs=3, algorithms=names, workers=1), tmp_path / "run")
    assert result is not None
    mean = float(world.table().test_200.mean())
    assert all(result[name]["mean"] > mean + 4 for name in names)  # the mean is 70, the maximum 80


def test_a_budget_too_small_for_one_evaluation_leaves_no_run_directory(tmp_path: Path, table: str) -> None:
    for budget in (10, HIGHEST_COST - 0.1):
        config = NASBenchConfig(table=table, runs=1, algorithms=("random",), budget=budget, workers=1)
        with pytest.raises(UserError, match=f"budget: one evaluation takes up to 204.8 s, more than {budget:g} s"):
            nas_bench(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    config = NASBenchConfig(table=table, runs=5, algorithms=("random",), budget=HIGHEST_COST + 0.1, workers=1)
    assert nas_bench(config, tmp_path / "run") is not None


def test_both_controllers_of_renas_are_rows(tmp_path: Path, table: str) -> None:
    names = ("rea", "renas", "renas-history")
    assert {"renas", "renas-history"} < set(NASBenchConfig().algorithms)
    settings: dict[str, Any] = {"population": 5, "sample": 3, "workers": 1, "budget": 3000}
    result = nas_bench(NASBenchConfig(table=table, runs=2, algorithms=names, **settings), tmp_path / "run")
    assert result is not None
    assert list(result) == [*names]
    assert result["renas"]["mean"] != result["renas-history"]["mean"]
    assert all("over_rea" in result[name] for name in names[1:])
    config = NASBenchConfig(algorithms=("renas", "renas-history"))
    controllers = [ALGORITHMS[name](config, 0, ()).controller for name in config.algorithms]  # type: ignore[attr-defined]
    assert [type(controller) for controller in controllers] == [LSTMController, HistoryController]


def test_renas_is_the_paper_by_default() -> None:
    strategy = ReNASConfig(population=4, sample=2).strategy(world.SPACE)
    assert isinstance(strategy.controller, LSTMController)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithms": ("bohb",)}, "algorithms: expected some of random, reinforce, rea, renas, .*got 'bohb'"),
        ({"algorithms": ("renas", "reinas")}, "algorithms: expected each at most once"),
    ],
)
def test_bad_configurations(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NASBenchConfig(**settings)
