"""A tuning run with two workers is killed and resumed: no trial that has ended is lost or repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_killed_tuning_runs_end_as_the_one_left_alone(tmp_path: Path) -> None:
    """By hand: OMP_NUM_THREADS=1 python python_tests/tune/tune_killed.py FOLDER 50."""
    script = Path(__file__).with_name("tune_killed.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "3"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 kills")
