"""benchmarks/differentiable_search.py: rows, their contents, and that finished rows are not repeated."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from paths import ROOT

from automl_ext.nas.estimators.benchmark_table import Table, place
from automl_ext.nas.spaces.nasbench201 import NASBench201

SCRIPT = ROOT / "benchmarks" / "differentiable_search.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the package is tested without its sources")


@pytest.mark.slow
def test_rows_are_measured_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = runpy.run_path(str(SCRIPT))
    out, file = tmp_path / "runs", tmp_path / "rows.json"
    command = [*("--data", "digits", "--subset", "100", "--channels", "2", "--seconds", "6e-3", "--seeds", "0")]
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
    assert found[0]["config"]["epochs"] == 1
    assert found[2]["config"]["evaluations"] == 1
    assert "perturbation mean" in capsys.readouterr().out
    before = file.read_text()
    script["main"]([*command, "--searches", "perturbation"])
    assert file.read_text() == before
    assert not list(tmp_path.glob("*.lock"))
