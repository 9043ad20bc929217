"""Workers: order of results, killed processes, errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from automl_ext.parallel.workers import Workers
from automl_ext.training.errors import UserError


def work(folder: Path, number: int, deaths: int = 0) -> tuple[int, torch.Tensor, int]:
    """Return ``number``, that many ones and the process id; small numbers take longest. Die ``deaths`` times."""
    died = len(list(folder.glob(f"{number}-*")))
    (folder / f"{number}-{died}-{os.getpid()}").touch()
    if died < deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(max(0.2 - 0.05 * number, 0.0))
    return number, torch.ones(number), os.getpid()


def fail(number: int) -> int:
    if number == 1:
        raise UserError("bad input, in a worker")
    return number


def test_one_worker_runs_in_this_process(tmp_path: Path) -> None:
    with Workers(partial(work, tmp_path), 1) as workers:
        workers.submit(3)
        assert not list(tmp_path.iterdir())  # nothing runs before next()
        number, ones, process = workers.next()
    assert (number, process) == (3, os.getpid())
    assert torch.equal(ones, torch.ones(3))


def test_results_are_in_order_after_killed_processes(tmp_path: Path) -> None:
    with Workers(partial(work, tmp_path), 2) as workers:
        for number in range(6):
            workers.submit(number, 1 if number in (1, 4) else 0)
        results = [workers.next() for _ in range(3)]
        workers.submit(6)
        results += [workers.next() for _ in range(4)]
    assert [number for number, _, _ in results] == list(range(7))
    assert all(torch.equal(ones, torch.ones(number)) for number, ones, _ in results)
    assert os.getpid() not in {process for _, _, process in results}
    assert len(list(tmp_path.glob("1-*"))) >= 2
    assert len(list(tmp_path.glob("4-*"))) >= 2


def test_repeated_deaths_raise_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl_ext.parallel.workers.DEATHS", 2)  # every new process imports torch
    with Workers(partial(work, tmp_path), 2) as workers:
        workers.submit(0, 100)
        with pytest.raises(UserError, match="killed 2 times during the same call"):
            workers.next()
    assert len(list(tmp_path.glob("0-*"))) == 2


def test_exceptions_of_the_function_are_raised() -> None:
    with Workers(fail, 2) as workers:
        for number in range(3):
            workers.submit(number)
        assert workers.next() == 0
        with pytest.raises(UserError, match="bad input, in a worker"):
            workers.next()


def test_zero_workers_raise_an_error() -> None:
    with pytest.raises(ValueError, match="workers: expected at least 1, got 0"):
        Workers(fail, 0)


UNGUARDED = """
import sys
from functools import partial
from automl_ext.parallel import workers
from automl_ext.training.run import Run
from automl_ext.nas.training.compare import CompareConfig

workers.DEATHS = 1
with Run.open(sys.argv[1], CompareConfig(), algorithm="compare"):
    with workers.Workers(partial(max, bytes(1 << 20)), 2) as pool:  # more than a pipe holds
        pool.submit(b"")
        pool.next()
"""


def test_a_worker_that_dies_at_its_start_does_not_hang_the_command(tmp_path: Path) -> None:
    """Worker processes import the script that starts them, and fail."""
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    command = [sys.executable, str(script), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "worker processes import the script that starts them: put its runs below if __name__" in done.stderr
    assert "UserError: a worker process was killed 1 times" in done.stderr.splitlines()[-1]
