"""A GDAS run that is killed with SIGKILL at random times and resumed equals an uninterrupted run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from compare_runs import same
from killed import kill_and_resume

IMPORTS = "from automl_ext.nas import GDASConfig, search_supernet"
CONFIG = "GDASConfig(subset=100, epochs=4, retrain_epochs=2, channels=4, retrain_channels=4)"


@pytest.mark.slow
def test_killed_and_resumed_run_equals_uninterrupted_run(tmp_path: Path) -> None:
    kill_and_resume(IMPORTS, f"search_supernet({CONFIG}, out, resume='auto')", tmp_path, kills=3)
    assert json.loads((tmp_path / "killed/environment.json").read_text())["resumed"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    same(*(json.loads((out / "result.json").read_text()) for out in (killed, whole)))
    assert (killed / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
