"""A GDAS run that is killed with SIGKILL at random times and resumed equals an uninterrupted run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from killed import kill_and_resume

pytest.importorskip("sklearn", reason="the digits data are scikit-learn's")

IMPORTS = "from automl_ext.nas.supernets.gdas import GDASConfig, search"
CONFIG = "GDASConfig(subset=200, epochs=6, retrain_epochs=4, channels=4, retrain_channels=4)"


def outcome(out: Path) -> tuple[dict, str]:
    result = json.loads((out / "result.json").read_text())
    del result["times"]
    return result, (out / "metrics.jsonl").read_text()


def test_killed_and_resumed_run_equals_uninterrupted_run(tmp_path: Path) -> None:
    kill_and_resume(IMPORTS, f"search({CONFIG}, out, resume='auto')", tmp_path, kills=3)
    assert json.loads((tmp_path / "killed/environment.json").read_text())["resumed"]
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
