"""The examples of README and docs work: Python blocks run page by page; README's `automl-ext` lines run, made short."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

README = (ROOT / "README.md").read_text()
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
# Tested elsewhere: test_estimators_page.py, test_extending.py, test_source.py. Tutorials run in `make docs`.
ELSEWHERE = {"nas-estimation.md", "extending.md", "extending-nas.md"}
PAGES = [ROOT / "README.md"] + [
    page for page in sorted(ROOT.glob("docs/*.md")) if PYTHON.search(page.read_text()) and page.name not in ELSEWHERE
]
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("automl-ext")
]
# Flags that make a command of the README short; the last one given counts.
SHORT = {
    "search entmax-gdas": "--subset 200 --epochs 1 --channels 4 --retrain-epochs 1 --retrain-channels 4",
    "search renas": "--subset 200 --epochs 1 --channels 4 --evaluations 5 --population 3 --sample 2",
    "retrain": "--subset 200 --epochs 1 --channels 4",
    "train": "--total-steps 600 --eval-every 300 --eval-episodes 2 --final-episodes 2",
    "compare": "--subset 200 --epochs 1 --channels 4 --random-cells 1",
}


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks(page: Path, tmp_path: Path) -> None:
    """One process per page: later blocks use the names of earlier ones."""
    code = "\n".join(PYTHON.findall(page.read_text()))
    done = run(["-W", "error::DeprecationWarning:__main__", "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_commands_in_order(tmp_path: Path) -> None:
    """One folder for all: later lines use what earlier ones wrote."""
    pytest.importorskip("sklearn", reason="the digits data are scikit-learn's")
    assert len(COMMANDS) >= 10
    for line in COMMANDS:
        words = shlex.split(line, comments=True)[1:]
        extra = next((flags for name, flags in SHORT.items() if " ".join(words).startswith(name)), "")
        done = run(["-m", "automl_ext", *words, *extra.split()], tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_it_has_enough_examples() -> None:
    assert len(PYTHON.findall(README)) >= 4
    assert {page.name for page in PAGES} >= {"README.md", "rl.md", "nas-search.md", "rl-offline.md", "rl-tabular.md"}
    assert "make test" in README
