"""The scripts that compute the figures of docs/how-to/estimation.md."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from paths import ROOT

BENCHMARKS = ROOT / "benchmarks"


def test_fidelity_ranking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short, long = range(40), [*range(36), 37, 36, 39, 38]  # two swaps among the best tenth
    table = SimpleNamespace(valid_12=np.array(short, float), valid_200=np.array(long, float))
    main = runpy.run_path(str(BENCHMARKS / "fidelity_ranking.py"))["main"]
    main.__globals__["Table"] = SimpleNamespace(load=lambda path: table)
    main(["--json", str(tmp_path / "out.json")])
    found = json.loads((tmp_path / "out.json").read_text())
    assert [row["n"] for row in found["rows"]] == [40, 4, 4]
    assert found["rows"][0]["kendall"] == pytest.approx(1 - 4 / 780)
    assert found["rows"][1]["kendall"] == found["rows"][2]["kendall"] == pytest.approx(1 / 3)
    assert found["accuracy_after_200"] == {"best": 39, "best_after_12": 38, "mean": 19.5}
    assert "Kendall 0.333" in capsys.readouterr().out


@pytest.mark.slow
def test_estimates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    main = runpy.run_path(str(BENCHMARKS / "estimates.py"))["main"]
    options = ["--data", "digits", "--subset", "100", "--image-size", "8", "--channels", "2", "--epochs", "2"]
    command = [*options, "--cells", "3", "--json", str(tmp_path / "out.json")]
    main(command)
    text = (tmp_path / "out.json").read_text()
    found = json.loads(text)
    names = ["train", "train, half of the epochs", "curve", "morphism"]
    assert [row["evaluator"] for row in found["rows"]] == names
    assert [list(cell) for cell in found["cells"].values()] == [names] * 3
    main(command)  # scores no cell again
    assert (tmp_path / "out.json").read_text() == text
    with pytest.raises(SystemExit):
        main([*command, "--seed", "1"])
