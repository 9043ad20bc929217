"""benchmarks/differentiable_search.py and inheritance.py: rows, their contents, and which rows are repeated."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from paths import ROOT

from automl_ext.nas.estimators.benchmark_table import Table, place
from automl_ext.nas.spaces.nasbench201 import NASBench201

BENCHMARKS = ROOT / "benchmarks"
SCRIPT = BENCHMARKS / "differentiable_search.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the package is tested without its sources")


@pytest.mark.slow
def test_rows_are_measured_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = runpy.run_path(str(SCRIPT))
    script["main"].__globals__["TOLERANCE"] = float("inf")  # short runs are not accurate
    out, file = tmp_path / "runs", tmp_path / "rows.json"
    command = [*("--data", "digits", "--subset", "100", "--channels", "2", "--seconds", "1", "--seeds", "0")]
    command += [*("--out", str(out), "--json", str(file), "--set", '{"batch_size": 20}')]
    script["main"]([*command, "--searches", "gdas", "perturbation", "random"])
    found = json.loads(file.read_text())
    assert [(row["search"], row["seed"]) for row in found] == [("gdas", 0), ("perturbation", 0), ("random", 0)]
    for row in found:
        operations = NASBench201().parse(row["genotype"]).operations
        assert row["table_test_accuracy"] == Table.load().test_200[place(NASBench201().parse(row["genotype"]))]
        assert row["share_none"] == pytest.approx(operations.count("none") / 6, abs=1e-3)
        assert row["search_cpu_seconds"] > 0
        assert "data" not in row["config"]
    assert found[2]["config"]["budget"] == 1
    assert "perturbation mean" in capsys.readouterr().out
    before = file.read_text()
    script["main"]([*command, "--searches", "perturbation"])
    assert file.read_text() == before
    assert not list(tmp_path.glob("*.lock"))


def test_the_number_of_epochs_fits_the_budget(tmp_path: Path) -> None:
    choose = runpy.run_path(str(SCRIPT))["choose_length"]
    args = SimpleNamespace(seconds=110.0)
    (tmp_path / "calibration.json").write_text(json.dumps({"epoch": 2.0, "derivation": 10.0}))
    assert choose("perturbation", args, None, tmp_path, []) == 50
    late = {"config": {"epochs": 50}, "search_cpu_seconds": 120.0}
    assert choose("perturbation", args, None, tmp_path, [late]) == 45


def test_a_row_away_from_the_budget_is_replaced(tmp_path: Path) -> None:
    script = runpy.run_path(str(SCRIPT))
    rows = [dict(zip(script["KEY"], ("gdas", 0, 480.0, 10_000, 8, "{}"), strict=True)) for _ in range(2)]
    rows = [row | {"search_cpu_seconds": seconds} for row, seconds in zip(rows, (404.0, 500.0), strict=True)]
    assert [script["at_budget"](row) for row in rows] == [False, True]
    for row in rows:
        script["add_row"](tmp_path / "rows.json", row)
    assert json.loads((tmp_path / "rows.json").read_text()) == rows[1:]


@pytest.mark.slow
def test_inheritance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = runpy.run_path(str(BENCHMARKS / "inheritance.py"))
    script["POPULATION"].update(population=2, sample=1)
    command = [*("--data", "digits", "--subset", "100", "--minutes", "0.025", "--seeds", "0")]
    command += [*("--out", str(tmp_path / "runs"), "--json", str(tmp_path / "rows.json"))]
    script["main"](command)
    text = (tmp_path / "rows.json").read_text()
    rows = {row["search"]: row for row in json.loads(text)}
    assert set(rows) == {"renas", "rea --inherit", "rea", "random"}
    for name, row in rows.items():
        assert row["table_test_accuracy"] == Table.load().test_200[place(NASBench201().parse(row["genotype"]))]
        assert row["command"].startswith(f"automl-ext search {name} --data digits --subset 100 --budget 1.5 --seed 0")
        (run,) = (tmp_path / "runs").glob(f"{name.replace(' --', '-')}-0.025m-*")
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert len([line for line in metrics if "score" in line]) == row["evaluated"]
        assert any("inherited" in line for line in metrics) == (name in ("renas", "rea --inherit"))
    script["main"](command)
    assert (tmp_path / "rows.json").read_text() == text
