"""Processes in which workers act and learn, and their supervision."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from automl_ext.rl.envs.guard import EnvError
from automl_ext.rl.envs.vector import Episode
from automl_ext.rl.envs.workers import how_ended
from automl_ext.training.ctrl_c import ignore_ctrl_c, workers_ignore_ctrl_c
from automl_ext.training.machine.worker_context import worker_context

START_LIMIT = 60.0  # seconds for a worker's environments and networks, which take long on a busy machine


class WorkerProcesses:
    """Worker processes, with the interface of :class:`~automl_ext.rl.envs.vector.Envs` that the training loop uses.

    Args:
        work: run in each process as ``work(worker, config, shared, pipe)``. For each step count received through the
            pipe it trains until this count, and then sends (metrics, episodes, CPU seconds), or the message of an
            error.
        config: the configuration, with ``n_workers``.
        shared: has ``steps``, a multiprocessing Value with the number of environment steps so far, and ``heartbeats``,
            see :class:`Watch`.

    Attributes:
        episodes: finished episodes that the loop has not reported yet.
    """

    def __init__(self, work: Callable[..., None], config: Any, shared: Any) -> None:
        self.work, self.config, self.shared = work, config, shared
        self.episodes: list[Episode] = []
        self.processes: list[Any] = []
        self.pipes: list[Connection] = []

    @property
    def steps(self) -> int:
        """The number of environment steps so far, over all workers."""
        return int(self.shared.steps.value)

    def run(self, until: int) -> dict[str, Any]:
        """Let all workers run until the step count reaches ``until``.

        Returns:
            Means of the workers' metrics, and the sum of their ``cpu_seconds``.
        """
        if not self.processes:
            self._start()
        try:
            for pipe in self.pipes:
                with contextlib.suppress(BrokenPipeError):  # the worker has failed; its report gives the reason
                    pipe.send(until)
            reports = self._reports()
        except BaseException:
            self.close()
            raise
        for _, episodes, _ in reports:
            self.episodes += [Episode(*episode) for episode in episodes]
        names = sorted({name for metrics, _, _ in reports for name in metrics})
        means = {name: float(np.mean([m[name] for m, _, _ in reports if name in m])) for name in names}
        return means | {"cpu_seconds": sum(seconds for _, _, seconds in reports)}

    def close(self) -> None:
        """Terminate the workers, whatever state they are in."""
        for pipe in self.pipes:
            pipe.close()  # a worker that waits for its next leg exits
        for process in self.processes:
            process.join(timeout=1)
            if process.is_alive():
                process.terminate()
                process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
        self.processes, self.pipes = [], []

    def _start(self) -> None:
        context = worker_context()
        self.shared.heartbeats.zero_()
        for i in range(self.config.n_workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(self.work, i, self.config, self.shared, theirs), daemon=True)
            try:
                with workers_ignore_ctrl_c():
                    process.start()
            except (EOFError, ConnectionError):  # the server from which it is forked died
                raise EnvError(f"--env-id {self.config.env_id}: worker process {i} died at its start") from None
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def _reports(self) -> list[Any]:
        """Wait for the report of each worker at the end of its leg, the steps up to the next pause.

        Raises:
            EnvError: a worker failed, died or hangs.
        """
        reports: dict[int, Any] = {}
        watch = Watch(self.shared.heartbeats.numpy(), self.config.env.step_timeout)
        while len(reports) < len(self.pipes):
            pending = [i for i in range(len(self.pipes)) if i not in reports]
            wait([x for i in pending for x in (self.pipes[i], self.processes[i].sentinel)], timeout=watch.period)
            for i in pending:
                dead = not self.processes[i].is_alive()  # check before polling: a worker may send a report and then die
                if self.pipes[i].poll() or dead:
                    reports[i] = self._receive(i)
                else:
                    watch.check(i)
        return [reports[i] for i in range(len(self.pipes))]

    def _receive(self, worker: int) -> Any:
        """Read a worker's report; raise EnvError if it died or reports an error."""
        try:
            report = self.pipes[worker].recv()
        except (EOFError, OSError):
            process = self.processes[worker]
            process.join(timeout=5)
            where = f"--env-id {self.config.env_id}: worker process {worker}"
            raise EnvError(f"{where} died ({how_ended(process)})") from None
        if isinstance(report, str):
            raise EnvError(f"worker {worker}: {report}")
        return report


def _work(work: Callable[..., None], *arguments: Any) -> None:
    """Run in a new process."""
    ignore_ctrl_c()
    work(*arguments)


class Watch:
    """Detect workers that make no step for ``limit`` seconds between two reports (a leg).

    Args:
        heartbeats: step counters of the workers, int64 [n_workers], updated by them.
        limit: time limit of one step, in seconds.

    Attributes:
        period: seconds between checks.
    """

    def __init__(self, heartbeats: np.ndarray, limit: float) -> None:
        self.heartbeats, self.limit, self.period = heartbeats, limit, min(limit / 4, 5.0)
        self.last, self.since = heartbeats.copy(), np.full(len(heartbeats), time.monotonic())

    def check(self, worker: int) -> None:
        """Check one worker. It is not checked before its first heartbeat, while its process starts.

        Raises:
            EnvError: its heartbeat has not changed for ``limit`` seconds. While it makes its environments and networks,
                with heartbeat 1, the limit is ``START_LIMIT`` if this is longer.
        """
        now = time.monotonic()
        starting = self.heartbeats[worker] == 1
        limit = max(self.limit, START_LIMIT) if starting else self.limit
        if self.heartbeats[worker] != self.last[worker] or not self.heartbeats[worker]:
            self.last[worker], self.since[worker] = self.heartbeats[worker], now
        elif now - self.since[worker] > limit:
            what = "did not make its environments within" if starting else "made no step for"
            source = ", the limit of --step-timeout" * (limit == self.limit)
            raise EnvError(f"worker process {worker} {what} {limit:g} s{source}: its environment hangs")


def received(pipe: Connection) -> Iterator[int]:
    """Yield the step counts received through ``pipe`` until it is closed."""
    try:
        while True:
            yield pipe.recv()
    except (EOFError, ConnectionResetError):
        return
