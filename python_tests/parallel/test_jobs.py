"""The queue of jobs: order of results, killed processes, errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from automl_ext.parallel.jobs import Jobs, WorkerDied
from automl_ext.training.ctrl_c import workers_ignore_ctrl_c
from automl_ext.training.errors import UserError
from automl_ext.training.machine.worker_context import worker_context


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


def cut_off(number: int, mark: Path, dies: bool) -> int:
    """Return ``number``; without the file ``mark`` half of it: then this process makes the file, and dies or hangs."""

    def half(self: Connection, message: bytes) -> None:
        os.write(self.fileno(), message[: len(message) // 2])
        mark.touch()
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(1000)

    if not mark.exists():
        Connection._send = half  # type: ignore[attr-defined]
    return number


def facts(number: int) -> tuple[bool, bool]:
    """Return whether the optimizers' slow import was made before this call, and whether Ctrl-C is ignored."""
    return "torch._dynamo" in sys.modules, signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process imports PyTorch")
@pytest.mark.slow
def test_processes_start_with_pytorch_loaded_and_ignore_ctrl_c() -> None:
    worker_context()
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    forkserver.ensure_running()  # as a DataLoader may start it, where Ctrl-C is not ignored
    with Jobs(facts, 2) as jobs:
        jobs.add((0,))
        assert jobs.next()[1] == (True, True)


def test_one_worker_runs_in_this_process(tmp_path: Path) -> None:
    with Jobs(partial(work, tmp_path), 1) as jobs:
        jobs.add((3,))
        assert not list(tmp_path.iterdir())  # nothing runs before next()
        number, ones, process = jobs.next()[1]
    assert (number, process) == (3, os.getpid())
    assert torch.equal(ones, torch.ones(3))


@pytest.mark.slow
def test_results_are_in_order_after_killed_processes(tmp_path: Path) -> None:
    with Jobs(partial(work, tmp_path), 2) as jobs:
        for number in range(6):
            jobs.add((number, 1 if number in (1, 4) else 0))
        results = [jobs.next()[1] for _ in range(3)]
        jobs.add((6,))
        results += [jobs.next()[1] for _ in range(4)]
    assert [number for number, _, _ in results] == list(range(7))
    assert all(torch.equal(ones, torch.ones(number)) for number, ones, _ in results)
    assert os.getpid() not in {process for _, _, process in results}
    assert len(list(tmp_path.glob("1-*"))) >= 2
    assert len(list(tmp_path.glob("4-*"))) >= 2


def test_a_result_that_is_cut_off_hangs_neither_the_queue_nor_its_end(tmp_path: Path) -> None:
    with Jobs(cut_off, 2) as jobs:
        jobs.add((7, tmp_path / "dies", True))
        assert jobs.next()[1] == 7
        jobs.add((8, tmp_path / "hangs", False))
        while not (tmp_path / "hangs").exists():
            time.sleep(0.01)


def test_repeated_deaths_raise_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl_ext.parallel.jobs.DEATHS", 2)  # every new process imports torch
    with Jobs(partial(work, tmp_path), 2) as jobs:
        jobs.add((0, 100))
        with pytest.raises(UserError, match="killed 2 times during the same call"):
            jobs.next()[1]
    assert len(list(tmp_path.glob("0-*"))) == 2


def test_exceptions_of_the_function_are_raised() -> None:
    with Jobs(fail, 2) as jobs:
        for number in range(3):
            jobs.add((number,))
        assert jobs.next()[1] == 0
        with pytest.raises(UserError, match="bad input, in a worker"):
            jobs.next()[1]


def test_pending_tasks_start_at_once_and_others_follow_up_to_the_number_ahead() -> None:
    pending, proposed = deque([(5, 6)]), iter([(1, 2), (3, 4), (7, 8)])
    with Jobs(max, 1, pending, ahead=2) as jobs:
        jobs.fill(lambda: next(proposed, None))
        assert list(pending) == [(5, 6), (1, 2)]
        assert jobs.next() == ((5, 6), 6)
        assert list(pending) == [(1, 2)]
        assert list(jobs.each(proposed)) == [((1, 2), 2), ((3, 4), 4), ((7, 8), 8)]
        assert not pending


def test_the_arguments_of_a_task_may_be_others_than_the_task() -> None:
    with Jobs(pow, 1, arguments=lambda task: (task, 3)) as jobs:
        assert list(jobs.each([2, 5])) == [(2, 8), (5, 125)]


@pytest.mark.slow
def test_a_task_is_repeated_alone_if_any_may_have_killed_the_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automl_ext.parallel.jobs.DEATHS", 1)
    with Jobs(partial(work, tmp_path), 2) as jobs:
        for task in ((1, 2), (2, 0), (3, 0)):
            jobs.add(task)
        with pytest.raises(WorkerDied, match="killed 1 times"):
            jobs.next()
        (tmp_path / "1-1-0").touch()  # the second death, so that the task then succeeds
        task, result = jobs.repeat_alone()
        assert (task, result is None) == ((1, 2), False)
        assert [task for task, _ in jobs.each()] == [(2, 0), (3, 0)]


def test_zero_workers_raise_an_error() -> None:
    with pytest.raises(ValueError, match="workers: expected at least 1, got 0"):
        Jobs(fail, 0)


UNGUARDED = """
import sys
import threading
from functools import partial
from automl_ext.parallel import jobs
from automl_ext.training.run import Run
from automl_ext.nas.training.compare import CompareConfig

jobs.DEATHS = 1
with Run.open(sys.argv[1], CompareConfig(), algorithm="compare"):
    with jobs.Jobs(partial(max, bytes(1 << 20)), 2) as pool:  # more than a pipe holds
        pool.add((b"",))
        pool.next()
"""


@pytest.mark.slow
def test_a_worker_that_dies_at_its_start_does_not_hang_the_command(tmp_path: Path) -> None:
    """Worker processes import the script that starts them, and fail."""
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    command = [sys.executable, str(script), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "worker processes import the script that starts them: put its runs below if __name__" in done.stderr
    assert "WorkerDied: a worker process was killed 1 times" in done.stderr.splitlines()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no server from which processes are forked")
def test_a_server_that_dies_at_its_start_is_started_again(tmp_path: Path) -> None:
    """The kernel kills it when memory is short, while it imports PyTorch."""
    server = forkserver._forkserver  # type: ignore[attr-defined]
    server._stop()
    kill = threading.Thread(target=_kill, args=(server,))
    kill.start()
    with Jobs(partial(work, tmp_path), 2) as jobs:
        jobs.add((3,))
        assert jobs.next()[1][0] == 3
    kill.join()


def _kill(server: object) -> None:
    while (process := server._forkserver_pid) is None:  # type: ignore[attr-defined]
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)


def test_sigterm_waits_until_a_process_is_started() -> None:
    """Ctrl-C does, too."""
    events: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: events.append("handled"))
    try:
        with workers_ignore_ctrl_c():
            signal.raise_signal(signal.SIGTERM)
            events.append("started")
        assert events == ["started", "handled"]
        signal.raise_signal(signal.SIGTERM)
        assert events == ["started", "handled", "handled"]
    finally:
        signal.signal(signal.SIGTERM, before)
