"""Fixtures: commands that must be refused, and finished runs."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path

import pytest
from run_commands import COMMANDS, Refused, command

# A line for an epoch or an evaluation, or for where a run continues.
PROGRESS = re.compile(r"[\w-]+ [\d,]+(/[\d,]+)?, \d+ s: |.+: (continues from step [\d,]+|no checkpoint, starts anew)$")


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Return a function that runs a command, checks for exit code 2 and one line, and returns the line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: object) -> str:
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert command(*args) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if not PROGRESS.match(line)]
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert len(lines[0]) < 1500
        return lines[0]

    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, ``policy`` and ``network``; copy them before changing them."""
    folder = tmp_path_factory.mktemp("runs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flags = [*COMMANDS["train a2c"], "--checkpoint-every", 30]
        assert command("train", "a2c", *flags, "--out", folder / "policy") == 0
        assert command("retrain", *COMMANDS["retrain"], "--out", folder / "network") == 0
    return folder


@pytest.fixture
def policy(runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs / "policy", tmp_path / "policy"))


@pytest.fixture
def network(runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs / "network", tmp_path / "network"))
