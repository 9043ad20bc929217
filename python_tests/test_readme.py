"""README tells the truth: its Python blocks run, and so do its `automl-ext` lines (made short)."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
RL = (Path(__file__).parent.parent / "docs/rl.md").read_text()
PYTHON = [text for language, text in BLOCKS if language == "python"] + re.findall(r"```python\n(.*?)```", RL, re.DOTALL)
COMMANDS = [
    line for language, text in BLOCKS if language == "sh" for line in text.splitlines() if line.startswith("automl-ext")
]
# Flags that make a command of the README short; the last one given counts.
SHORT = {
    "search entmax-gdas": "--subset 200 --epochs 1 --channels 4 --retrain-epochs 1 --retrain-channels 4",
    "retrain": "--subset 200 --epochs 1 --channels 4",
    "train": "--total-steps 600 --eval-every 300 --eval-episodes 2 --final-episodes 2",
    "compare": "--subset 200 --epochs 1 --channels 4 --random-cells 1",
}
RUN_BY_CI = {"make", "make test", "automl-ext demo"}  # `make` runs the demo


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_block(code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_commands_in_order(tmp_path: Path) -> None:
    """One folder for all: later lines use what earlier ones wrote."""
    pytest.importorskip("sklearn", reason="the digits data are scikit-learn's")
    assert len(COMMANDS) >= 4
    for line in COMMANDS:
        words = shlex.split(line, comments=True)[1:]
        if " ".join(["automl-ext", *words]) in RUN_BY_CI:
            continue
        extra = next((flags for name, flags in SHORT.items() if " ".join(words).startswith(name)), "")
        done = subprocess.run(
            [sys.executable, "-m", "automl_ext", *words, *extra.split()],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_it_has_enough_examples() -> None:
    assert len(PYTHON) >= 3
    assert "make test" in README
    assert "RESULTS" not in README
