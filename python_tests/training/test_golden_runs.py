"""Run directories that an earlier version made: each command continues its own, and reads it.

They are never made again: a version that cannot read one must refuse it in one line, which then stands in REFUSED.
``python python_tests/training/test_golden_runs.py search gdas --epochs 2 … --stop-after 1`` makes one of a new command.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from automl_ext import training
from automl_ext.training.machine.environment import environment
from automl_ext_cli.table import COMMANDS

GOLDEN = Path(__file__).parent / "golden"
RUNS = sorted(path.name.partition(".")[0] for path in GOLDEN.iterdir())
# First word of the command → a command that reads its run.
READ = dict.fromkeys(("search", "score", "nas-bench", "compare", "ensemble", "tune"), "plot run")
READ |= {"retrain": "export run --out new", "train": "eval run --episodes 1"}
READ |= {"fit": "predict run table.csv --out new.csv"}
REFUSED: dict[str, str] = {}  # run → the line of the refusal
# Runs record their command line: this one names no folder of the machine.
PROGRAM = "import sys; sys.argv[0] = 'automl-ext'; from automl_ext_cli.entry import main; sys.exit(main())"
Command = Callable[..., tuple[int, str, str]]


def test_every_command_that_makes_a_run_has_one() -> None:
    makes = {name.replace(" ", "-") for name, command in COMMANDS.items() if command.kind not in ("alias", "other")}
    assert {name for name in makes if not any(run.startswith(name) for run in RUNS)} == set()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("run", RUNS)
def test_a_golden_run_is_continued_and_read(
    run: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if torch had the version of the golden run: another one refuses to continue a run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Figure, "savefig", lambda *args, **options: None)  # other tests render such pictures
    with tarfile.open(GOLDEN / f"{run}.tar.xz") as tar:
        tar.extractall(filter="data")
    stored = json.loads(Path("run/environment.json").read_text())
    monkeypatch.setattr(training.run, "environment", lambda: {**environment(), "torch": stored["torch"]})
    words = re.sub(r" --stop-after \d+", "", " ".join(stored["command_line"][1:])).split()
    if words[0] != "fit":
        code, out, err = command(*words, "--resume", "auto")
        if run in REFUSED:
            assert (code, err) == (2, f"error: {REFUSED[run]}\n")
            return
        assert code == 0, err
        assert "continues from" in out + err
    code, _, err = command(*READ[words[0]].split())
    assert code == 0, err


def make(words: Sequence[str]) -> None:
    """Make the run of a command line. Record episodes.npz if it names this file; write table.csv for ``fit``."""
    name = "-".join(words[: 3 if words[0] == "tune" else 2 if words[0] in ("search", "train") else 1])
    lines = [[*words, "--out", "run"]]
    if "episodes.npz" in words:
        first = "train a2c --total-steps 32 --eval-every 32 --eval-episodes 1 --final-episodes 1 --hidden 8 --out agent"
        lines = [first.split(), ["record", "agent", "--episodes", "4", "--out", "episodes.npz"], *lines]
    with tempfile.TemporaryDirectory() as folder, tarfile.open(GOLDEN / f"{name}.tar.xz", "x:xz") as tar:
        if words[0] == "fit":
            rows = "".join(f"{i * i % 17},{'ab'[i % 2]}\n" for i in range(60))
            Path(folder, "table.csv").write_text(f"x,y\n{rows}")
        for line in lines:
            variables = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            subprocess.run([sys.executable, "-c", PROGRAM, *line], cwd=folder, env=variables, check=True)
        shutil.rmtree(f"{folder}/run/tensorboard", ignore_errors=True)
        for part in ("run", "table.csv", "episodes.npz"):
            if Path(folder, part).exists():
                tar.add(f"{folder}/{part}", part)


if __name__ == "__main__":
    make(sys.argv[1:])
