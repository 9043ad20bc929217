"""Searches with strategies: budget, exact resume, workers, failures, inherited weights, plots."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from random import Random
from typing import Any

import nas_search_world as world
import pytest
import torch
from compare_runs import same
from killed import kill_and_resume

from automl_ext.data.images import load_images, split_images
from automl_ext.nas.estimators.inheritance import Inheriting, inherit
from automl_ext.nas.estimators.lower_fidelity import LowerFidelity
from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.plot import plot_run
from automl_ext.nas.search.evaluators import EVALUATORS, scoring
from automl_ext.nas.search.history import pareto_front
from automl_ext.nas.search.search import search
from automl_ext.nas.spaces.nasbench201 import Genotype, NASBench201
from automl_ext.nas.strategies.evolution import EvolutionConfig
from automl_ext.nas.strategies.random_search import RandomConfig
from automl_ext.nas.strategies.renas import ReNASConfig
from automl_ext.nas.strategies.search_options import SearchConfig
from automl_ext.nas.strategies.successive_halving import SuccessiveHalvingConfig
from automl_ext.nas.training.training_options import TrainingConfig
from automl_ext.parallel.seeds import run_seeds
from automl_ext.training.errors import UserError
from automl_ext.training.files import checkpoint
from automl_ext_cli import load
from automl_ext_cli.table import COMMANDS

SPACE = NASBench201()
TINY: dict[str, Any] = {"subset": 200, "channels": 4, "epochs": 2}
TINIEST = {**TINY, "subset": 60, "channels": 2}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(world.write(tmp_path_factory.mktemp("table") / "table.npz"))


def logged(out: Path, *, seconds: bool = True) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl, optionally without measured seconds."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return rows if seconds else [{k: v for k, v in row.items() if k not in ("cost", "seconds")} for row in rows]


def test_every_strategy_searches_the_table(tmp_path: Path, table: str) -> None:
    strategies = {command.name: command for command in COMMANDS.values() if command.kind == "strategy"}
    for name, command in strategies.items():
        config = load(command.options)
        result = search(name, config(evaluator="table", table=table, budget=4000), tmp_path / name)
        assert result is not None
        assert result["times"]["evaluation_seconds"] <= 4000
        assert result["evaluations"] == len(logged(tmp_path / name))
        assert result["score"] == logged(tmp_path / name)[-1]["best_score"]
        assert result == json.loads((tmp_path / name / "result.json").read_text())
        genotype = SPACE.parse(result["genotype"])
        assert result["test_accuracy"] == 70 + world.quality(SPACE.encode(genotype))


def test_revisits_cost_and_the_evaluation_over_budget_does_not_count(tmp_path: Path, table: str) -> None:
    class One(NASBench201):
        def random(self, rng: Any) -> Genotype:
            return Genotype(("none",) * 6)

    cost = 80 + 2.5 * (0.5 + 0.085 * 80 / 12)
    for budget, count in [(3 * cost + 0.01, 3), (3 * cost - 0.01, 2)]:
        config = RandomConfig(evaluator="table", table=table, budget=budget)
        result = search("random", config, tmp_path / str(count), space=One())
        assert result is not None
        assert result["evaluations"] == count
        assert result["times"]["evaluation_seconds"] == pytest.approx(count * cost)


def test_resumed_search_equals_uninterrupted_search(tmp_path: Path, table: str) -> None:
    config = ReNASConfig(evaluator="table", table=table, evaluations=60, population=8, sample=3, workers=1)
    whole = search("renas", config, tmp_path / "whole")
    assert search("renas", config, tmp_path / "parts", stop_after=7) is None
    assert len(logged(tmp_path / "parts")) == 7
    assert search("renas", config, tmp_path / "parts", resume="auto", stop_after=30) is None
    parts = search("renas", config, tmp_path / "parts", resume="auto")
    same(parts, whole)
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("renas", ReNASConfig(**TINIEST, evaluations=7, population=3, sample=2)),
        ("rea", EvolutionConfig(**TINIEST, evaluations=7, population=3, sample=2, inherit=True)),
        ("successive-halving", SuccessiveHalvingConfig(**TINIEST, evaluations=7, candidates=4, eta=2, rungs=2)),
        ("random", RandomConfig(**TINIEST, evaluator="curve", evaluations=7)),
        ("random", RandomConfig(**TINIEST, evaluator="morphism", evaluations=7)),
        ("rea", EvolutionConfig(**TINIEST, evaluator="supernet", evaluations=5, population=3, sample=2)),
    ],
)
def test_resumed_trainings_equal_uninterrupted_ones(tmp_path: Path, name: str, config: SearchConfig) -> None:
    whole = search(name, config, tmp_path / "whole")
    for _ in range(2):
        assert search(name, config, tmp_path / "parts", resume="auto", stop_after=3) is None
    same(search(name, config, tmp_path / "parts", resume="auto"), whole)
    assert logged(tmp_path / "parts", seconds=False) == logged(tmp_path / "whole", seconds=False)


def test_number_of_workers_does_not_change_random_search(tmp_path: Path) -> None:
    """Random search ignores the scores, so its candidates and results do not depend on the workers."""
    results = []
    for workers in (1, 2):
        config = RandomConfig(**TINY, evaluations=4, workers=workers)
        result = search("random", config, tmp_path / str(workers))
        assert ("search_cpu_seconds" in result["times"]) == (workers == 1)  # workers' time is not measured
        results.append(result)
    same(*results)


class Diverging(LowerFidelity):
    """Fails on cells whose first edge is a 3×3 convolution."""

    def evaluate(self, genotype: Genotype, budget: int | None = None, state: Any = None) -> Evaluation:
        if genotype.operations[0] == "nor_conv_3x3":
            return Evaluation(-math.inf, 0.0, failed=True)
        return Evaluation(world.quality(SPACE.encode(genotype)), 0.0)


def test_the_training_of_a_supernet_counts_in_the_cost(tmp_path: Path) -> None:
    result = search("random", RandomConfig(**TINY, evaluator="supernet", evaluations=2), tmp_path / "run")
    assert result is not None
    seconds = result["times"]["supernet_seconds"]
    assert seconds > 0
    first, last = [row for row in logged(tmp_path / "run") if "score" in row]
    assert first["seconds"] == pytest.approx(seconds + first["cost"])
    assert last["seconds"] == pytest.approx(seconds + result["times"]["evaluation_seconds"])
    short = RandomConfig(**{**TINY, "epochs": 3}, evaluator="supernet", budget=0.001)
    with pytest.raises(UserError, match=r"^budget: 1 of 3 epochs of the supernet took .* s, more than 0.001 s"):
        search("random", short, tmp_path / "short")


@pytest.mark.parametrize("evaluator", ["train", "supernet"])
def test_costs_are_cpu_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluator: str) -> None:
    monkeypatch.setattr("time.process_time", itertools.count().__next__)  # costs in its units are whole numbers
    config = RandomConfig(**TINY, evaluator=evaluator, evaluations=2, device="cpu")
    result = search("random", config, tmp_path / "run")
    assert result is not None
    costs = [row["cost"] for row in logged(tmp_path / "run") if "score" in row]
    costs += [result["times"].get("supernet_seconds", 1)]
    assert costs == [int(cost) for cost in costs]
    assert min(costs) >= 1


@pytest.mark.slow
def test_a_supernet_is_trained_longer_than_a_single_network(tmp_path: Path) -> None:
    assert [RandomConfig(evaluator=name).training_epochs for name in EVALUATORS] == [4, 4, 12, 4, 100]
    assert RandomConfig(evaluator="supernet", epochs=3).training_epochs == 3
    assert SuccessiveHalvingConfig().training_epochs == 9
    config = RandomConfig(subset=60, channels=1, batch_size=30, evaluator="supernet", evaluations=1, lr=1e-4)
    search("random", config, tmp_path / "run")
    assert json.loads((tmp_path / "run/config.json").read_text())["epochs"] == 100
    assert sum("supernet_loss" in row for row in logged(tmp_path / "run")) == 100


def test_the_rate_of_a_supernet_does_not_rise() -> None:
    splits = load_images("digits", subset=60)
    config = RandomConfig(subset=60, channels=1, evaluator="supernet", epochs=1, lr=1e-4)
    job = scoring(config, SPACE, splits).job
    assert job is not None
    job.run_epoch()
    assert job.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)


def test_failed_candidates_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl_ext.nas.search.evaluators.LowerFidelity", Diverging)
    result = search("random", RandomConfig(**TINY, evaluations=40, finalists=0), tmp_path / "run")
    assert result is not None
    rows = logged(tmp_path / "run")
    assert result["failed"] == sum(row["score"] is None for row in rows) == rows[-1]["failed"] > 0
    assert not result["genotype"].startswith("|nor_conv_3x3")
    assert result["evaluations"] == 40


def test_diverging_candidates_fail(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="random: all 2 candidates failed; try a lower learning rate"):
        search("random", RandomConfig(**TINY, evaluations=2, lr=1e12), tmp_path / "run")
    assert [row["score"] for row in logged(tmp_path / "run")] == [None, None]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda table: RandomConfig(evaluator="table", table=table, budget=10),
            "budget: one evaluation takes up to .* 10 s",
        ),
        (lambda table: RandomConfig(space="renas", evaluator="supernet"), "space renas: has no supernet"),
        (lambda table: RandomConfig(evaluator="supernet", cutmix=0.5), "cutmix: the evaluator supernet has no"),
        (lambda table: RandomConfig(space="nb101"), "space: expected one of nb201.*, got 'nb101'"),
        (lambda table: RandomConfig(evaluator="table", table=table + "x"), "table: cannot read"),
        (lambda table: RandomConfig(evaluator="table", table=__file__), "table: expected an npz file"),
        (lambda table: RandomConfig(evaluator="oracle"), f"evaluator: expected one of {', '.join(EVALUATORS)}, got"),
        (lambda table: RandomConfig(evaluator="morphism", space="darts"), "evaluator: morphism widens NAS-Bench-201"),
        (lambda table: RandomConfig(evaluator="morphism", channels=1), "channels: the evaluator morphism halves them"),
        (lambda table: RandomConfig(**TINY, auxiliary=1.0), "--auxiliary: networks of this space have no auxiliary"),
    ],
)
def test_bad_input_is_refused_before_the_run_directory_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, make: Any, message: str
) -> None:
    monkeypatch.setattr("automl_ext.nas.search.search.Run.open", lambda *args, **kwargs: pytest.fail("run directory"))
    with pytest.raises(UserError, match=message) as error:
        search("random", make(table), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_budget_too_small_for_one_training(tmp_path: Path) -> None:
    """This is known after the first training. The same --out can then be used with a larger budget."""
    with pytest.raises(UserError, match=r"budget: one evaluation takes .* s, more than 0\.001 s"):
        search("random", RandomConfig(**TINY, budget=0.001), tmp_path / "run")
    assert search("random", RandomConfig(**TINY, budget=1000, evaluations=1), tmp_path / "run", resume="auto")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomConfig(evaluator="table", space="darts"), "the table holds NAS-Bench-201 cells"),
        (lambda: ReNASConfig(fine_tune=9, epochs=4), "fine_tune: expected at most 4 .epochs., got 9"),
        (
            lambda: EvolutionConfig(evaluator="table", inherit=True),
            "inherit: children inherit with --evaluator train only, got 'table'",
        ),
        (lambda: RandomConfig(evaluator="curve", epochs=1), "epochs: the evaluator curve halves them, .* got 1"),
        (
            lambda: SuccessiveHalvingConfig(evaluator="supernet"),
            "successive halving needs budgets, which supernet does not support",
        ),
        (
            lambda: SuccessiveHalvingConfig(epochs=8),
            "epochs: expected at least 9, for one epoch in the first rung, got 8",
        ),
    ],
)
def test_invalid_configurations(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# ---- inherited weights


def evaluator(fine_tune: int = 1) -> Inheriting:
    config = TrainingConfig(**TINY)
    splits = split_images(load_images("digits", subset=200))
    return Inheriting(LowerFidelity(config, splits, space=SPACE), fine_tune)


PARENT = SPACE.decode([3, 2, 1, 3, 2, 3])


def test_a_child_inherits_unchanged_layers() -> None:
    trained = evaluator()
    state = trained.evaluate(PARENT).state
    assert state is not None
    weights = state["training"]["network"]
    child = SPACE.decode([3, 2, 1, 3, 2, 2])  # the last edge: 1×1 instead of 3×3
    start, share = trained.inherited(child, state)
    for name, value in start["training"]["network"].items():
        if ".edges.5." in name:  # the new operation is initialized, including its batch norm of equal shape
            assert name not in weights or not torch.equal(value, weights[name]) or value.numel() == 1 or "bias" in name
        else:
            assert torch.equal(value, weights[name]), name
    mean = start["training"]["network"]["stages.0.0.edges.5.2.running_mean"]
    assert not mean.any()
    assert 0 < share < 1
    evaluation = trained.evaluate(child, state=state)
    assert evaluation.measured["epochs"] == 1
    assert evaluation.measured["inherited"] == share
    assert trained.evaluate(PARENT).measured["epochs"] == 2


def test_a_child_inherits_the_auxiliary_head() -> None:
    config = TrainingConfig(space="darts", channels=4, epochs=2, auxiliary=0.4)
    splits = split_images(load_images("digits", subset=200))
    trained = Inheriting(LowerFidelity(config, splits), fine_tune=1)
    space = trained.training.space
    parent = space.random(Random(1))
    indices = list(space.encode(parent))
    indices[10] = (indices[10] + 1) % space.num_choices[10]
    training = trained.training.training(parent).state_dict()
    for value in training["network"].values():
        value.fill_(3)  # unlike the initial weights
    state = {"genotype": str(parent), "training": training}
    start, _ = trained.inherited(space.decode(indices), state)
    head = {name: value for name, value in start["training"]["network"].items() if name.startswith("auxiliary.")}
    assert head
    assert all((value == 3).all() for value in head.values())


def test_inheriting_changes_neither_the_parent_nor_global_generators() -> None:
    trained = evaluator()
    state = trained.evaluate(PARENT).state
    assert state is not None
    copy = {name: value.clone() for name, value in state["training"]["network"].items()}
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    child = SPACE.decode([3, 2, 1, 3, 2, 0])
    first, second = (trained.evaluate(child, state=state) for _ in range(2))
    assert torch.equal(torch.rand(()), expected)
    assert first.score == second.score
    assert all(torch.equal(value, copy[name]) for name, value in state["training"]["network"].items())


def test_the_random_state_of_a_child_does_not_depend_on_the_callers() -> None:
    trained = evaluator()
    state = trained.evaluate(PARENT).state
    assert state is not None
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        start, _ = trained.inherited(SPACE.decode([3, 2, 1, 3, 2, 0]), state)
        states.append(start["training"]["rng"]["torch"])
    assert torch.equal(*states)


def test_inherit_needs_equal_layers_in_equal_modules() -> None:
    def network(kernel: int) -> torch.nn.Sequential:
        operation = torch.nn.Sequential(torch.nn.Conv2d(2, 2, kernel), torch.nn.BatchNorm2d(2))
        return torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(2, 2)), operation)

    same = inherit(network(3), network(3), network(3).state_dict())
    assert set(same) == set(network(3).state_dict())
    other = inherit(network(1), network(3), network(3).state_dict())
    assert set(other) == {"0.0.weight", "0.0.bias"}


@pytest.mark.parametrize(("name", "make"), [("rea", EvolutionConfig), ("renas", ReNASConfig)], ids=["rea", "renas"])
def test_children_inherit_if_asked(tmp_path: Path, name: str, make: Any) -> None:
    """The two children are trained for one epoch in place of two, and only if they inherit."""
    for inherits in (False, True):
        options = {**TINY, "subset": 100, "evaluations": 4, "population": 2, "sample": 1, "finalists": 0}
        search(name, make(**options, inherit=inherits), tmp_path / str(inherits))
        rows = logged(tmp_path / str(inherits))
        assert [row["epochs"] for row in rows] == [2, 2] + [1 if inherits else 2] * 2
        assert ["inherited" in row for row in rows] == [False, False, inherits, inherits]


def test_fine_tune_is_checked() -> None:
    with pytest.raises(ValueError, match="fine_tune: expected 1 to 2 epochs, got 3"):
        evaluator(3)


# ---- Pareto front and plots


def test_pareto_front() -> None:
    costs, scores = [3, 1, 2, 2, 5, 4, 1], [5, 1, 4, 3, 6, 5, 1]
    assert pareto_front(costs, scores) == [1, 2, 0, 4]
    assert pareto_front([], []) == []


def test_result_contains_the_front(tmp_path: Path, table: str) -> None:
    result = search("random", RandomConfig(evaluator="table", table=table, evaluations=50), tmp_path / "run")
    assert result is not None
    front = result["pareto"]
    assert front[-1]["score"] == result["score"]
    assert [p["parameters"] for p in front] == sorted({p["parameters"] for p in front})
    assert [p["score"] for p in front] == sorted({p["score"] for p in front})


def test_seeds_are_added_to_a_finished_search(tmp_path: Path, table: str) -> None:
    config = RandomConfig(evaluator="table", table=table, evaluations=3)
    for seeds in ([0], [0, 1]):
        result = run_seeds(search_random, "random", config, tmp_path / "run", seeds, resume="auto")
        assert result is not None
        assert result["seeds"] == seeds


def search_random(config: Any, out: Path, **options: Any) -> dict[str, Any] | None:
    return search("random", config, out, **options)


def test_the_last_evaluation_is_in_a_checkpoint(tmp_path: Path, table: str) -> None:
    search("rea", EvolutionConfig(evaluator="table", table=table, evaluations=30), tmp_path / "run")
    assert checkpoint.step_of(checkpoint.list_steps(tmp_path / "run/checkpoints")[-1]) == 30


@pytest.mark.slow
def test_plots(tmp_path: Path, table: str) -> None:
    search("rea", EvolutionConfig(evaluator="table", table=table, evaluations=30), tmp_path / "run")
    names = {path.name for path in plot_run(tmp_path / "run")}
    assert names == {"curves.png", "trajectory.png", "pareto.png", "cell.png", "cell.svg"}
    assert all((tmp_path / "run" / name).stat().st_size > 1000 for name in names)


# ---- killed processes


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_resumed_equals_uninterrupted_search(tmp_path: Path, workers: int) -> None:
    imports = "from automl_ext.nas.search.search import search; from automl_ext.nas.strategies.renas import ReNASConfig"
    config = f"ReNASConfig(subset=100, channels=4, epochs=1, evaluations=12, population=4, sample=2, workers={workers})"
    kill_and_resume(imports, f"search('renas', {config}, out, resume='auto')", tmp_path, kills=3)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert json.loads((killed / "environment.json").read_text())["resumed"]
    same(*(json.loads((out / "result.json").read_text()) for out in (whole, killed)))
    assert logged(whole, seconds=False) == logged(killed, seconds=False)


def test_progress_counts_the_epochs_of_the_supernet(tmp_path: Path, capsys: Any) -> None:
    search("random", RandomConfig(**TINY, evaluator="supernet", evaluations=2), tmp_path)
    assert re.search(r"^random 4/4, ", capsys.readouterr().err, re.MULTILINE)
