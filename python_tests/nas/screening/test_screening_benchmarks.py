"""The scripts that compute the figures on training-free scores and on screening."""

from __future__ import annotations

import json
import runpy
from itertools import product
from pathlib import Path
from typing import Any

import nas_search_world as world
import numpy as np
import pytest
from paths import ROOT

from automl_ext.nas.estimators.benchmark_table import place
from automl_ext.nas.estimators.training_free.correlations import spearman
from automl_ext.nas.estimators.training_free.scores import RANK
from automl_ext.nas.screening.score import ScoreConfig, score
from automl_ext.nas.screening.score_table import ScoreTable


def script(name: str, **constants: Any) -> Any:
    """Load a script with other constants; returns its function ``main``."""
    main = runpy.run_path(str(ROOT / "benchmarks" / name))["main"]
    main.__globals__.update(constants)
    return main


def test_training_free(tmp_path: Path) -> None:
    config = ScoreConfig(subset=200, channels=4, images=8, random=8, scores=("parameters",))
    assert score(config, tmp_path / "run") is not None
    table = world.write(tmp_path / "table.npz")
    main = script("training_free.py", TIMED=2, RESAMPLES=5)
    main(["digits", str(tmp_path / "run"), "--table", str(table), "--json", str(tmp_path / "out.json")])
    (run,) = json.loads((tmp_path / "out.json").read_text())["runs"]
    rows = {row["score"]: row for row in run["rows"]}
    assert list(rows) == ["parameters", *RANK, "combined rank", "combined rank, parameters"]
    scores = ScoreTable.read(tmp_path / "run/scores.csv", world.SPACE)
    truth = world.table().test_200[[place(genotype) for genotype in scores.genotypes]]
    assert rows["combined rank"]["spearman"] == pytest.approx(spearman(scores.rank(), truth), abs=1e-4)
    assert rows["combined rank"]["pick"] == truth[scores.rank().argmax()]
    low, high = rows["combined rank"]["spearman_interval"]
    assert -1 <= low <= high <= 1
    assert rows["combined rank"]["cpu_seconds"] > 0


def test_nas_screening(tmp_path: Path) -> None:
    cells = [world.SPACE.decode(indices) for indices in product(range(5), repeat=6)]
    quality = np.array([world.quality(world.SPACE.encode(cell)) for cell in cells])
    ScoreTable(cells, dict.fromkeys(RANK, quality), np.full(len(cells), 0.1)).write(tmp_path / "scores.csv")
    table = world.write(tmp_path / "table.npz")
    main = script("nas_screening.py", ROWS=[(1500.0, 3, 50, 5, 3)])
    arguments = [str(tmp_path / "scores.csv"), "--table", str(table), "--out", str(tmp_path / "runs")]
    main([*arguments, "--json", str(tmp_path / "out.json")])
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert (row["budget"], row["screen"], row["population"]) == (1500, 50, 5)
    plain = ["random", "reinforce", "rea", "renas", "renas-history"]
    assert list(row["algorithms"]) == [*plain, *(f"{name}+screen" for name in plain if name != "reinforce")]
    main([*arguments, "--json", str(tmp_path / "again.json")])  # nothing is repeated
    assert (tmp_path / "again.json").read_text() == (tmp_path / "out.json").read_text()
