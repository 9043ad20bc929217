"""Functions that the tests of Ray call in worker processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch

from automl_ext.training.errors import UserError


def work(folder: Path, number: int, seconds: float = 0.0, deaths: int = 0) -> tuple[int, torch.Tensor, int]:
    """Return ``number``, that many ones and the process id, after ``seconds``. Kill the process ``deaths`` times."""
    died = len(list(folder.glob(f"{number}-*")))
    (folder / f"{number}-{died}-{os.getpid()}").touch()
    if died < deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(seconds)
    return number, torch.ones(number), os.getpid()


def work_until(gate: Path, folder: Path, number: int) -> tuple[int, torch.Tensor, int]:
    """Do the work of ``number`` when the file ``gate`` exists."""
    result = work(folder, number)
    while not gate.exists():
        time.sleep(0.05)
    return result


def fail(number: int) -> int:
    """Return ``number``; raise an error for 1, and one that cannot be pickled for 2."""
    if number == 1:
        raise UserError("bad input, in a worker")
    if number == 2:
        raise Unpicklable(lambda: None)
    return number


class Unpicklable(Exception):
    pass


def facts(number: int) -> dict[str, object]:
    """Return what a call finds in its worker."""
    return {
        "threads": torch.get_num_threads(),
        "folder": os.getcwd(),
        "variable": os.environ.get("AUTOML_EXT_TEST"),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
