"""Runs that are killed with SIGKILL at random times after a new checkpoint and resumed, beside one that is left alone.

The runs are forks of one process that has made such a run and so has imported everything; their workers are forks too.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import fresh_python
from paths import ROOT

from automl_ext.parallel import processes


def kill_and_resume(imports: str, call: str, folder: Path, kills: int) -> None:
    """Make the run FOLDER/whole, and FOLDER/killed, which is killed ``kills`` times and resumed.

    Args:
        imports, call: code that imports, and an expression that starts or resumes the run in the folder ``out``.
        folder, kills: the folder, and how often the run is killed.
    """
    code = (
        f"import sys; sys.path += {[str(ROOT / 'python_tests/helpers')]!r}\n"
        f"import killed; from pathlib import Path\n{imports}\n"
        f"killed.forked(lambda out: {call}, Path({str(folder)!r}), {kills})\n"
    )
    status, _, error = fresh_python.run(code)
    assert status == 0, error


def forked(run: Callable[[Path], object], folder: Path, kills: int) -> None:
    """Do what :func:`kill_and_resume` says in forks of this process."""
    fork = multiprocessing.get_context("fork")
    processes.worker_context = lambda: fork
    run(folder / "warm")
    gc.freeze()  # a collection in a fork would copy all pages

    def start(name: str) -> int:
        pid = os.fork()
        if not pid:
            run(folder / name)
            os._exit(0)
        return pid

    began = time.perf_counter()
    assert os.waitpid(start("whole"), 0)[1] == 0
    span, moments, done = 0.6 / kills * (time.perf_counter() - began), random.Random(0), 0
    while done < kills:
        before, pid = newest(folder / "killed"), start("killed")
        while newest(folder / "killed") == before and not ended(pid):
            time.sleep(0.001)
        time.sleep(moments.uniform(0, span))
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        assert status in (0, signal.SIGKILL), f"the run failed: wait status {status}"
        done += status == signal.SIGKILL
        if not status and done:  # it ended: it was killed less often than asked
            break
        if not status:  # the whole run took longer, beside other work: begin again with kills that come sooner
            shutil.rmtree(folder / "killed")
            span /= 2
            assert span > 1e-3, "the run ended before it could be killed"
    assert os.waitpid(start("killed"), 0)[1] == 0


def ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def newest(out: Path) -> str:
    """Return the name of the newest checkpoint of a run."""
    return max((path.name for path in out.glob("checkpoints/step-*")), default="")
