"""The queue of jobs: calls of one function, which run here, in processes or on Ray. Results come in order.

    with Jobs(function, workers) as jobs:      where they run: automl_ext.parallel.cluster
        jobs.fill(propose)                     start tasks until ``workers`` are in flight
        task, result = jobs.next()             the oldest task and its result

The order of results depends on the number of workers, but not on where the calls run or which of them is faster. A
checkpoint only needs ``jobs.pending``: a resumed run passes these tasks to its own queue.
"""

from __future__ import annotations

import contextlib
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from automl_ext.parallel.backend import Backend
from automl_ext.parallel.cluster import current_cluster
from automl_ext.training.errors import UserError
from automl_ext.training.user_code import GUARD

Task = TypeVar("Task")
Result = TypeVar("Result")
DEATHS = 3  # number of process deaths during the same call that raises an error


class WorkerDied(UserError):
    """Processes were killed ``DEATHS`` times during the same call."""


@dataclass
class _Call:
    arguments: bytes  # pickled
    handle: Any = None  # of the back end
    finished: bool = False
    deaths: int = 0


class Jobs(Generic[Task, Result]):
    """Calls ``function`` for tasks, at most ``workers`` at the same time.

    The calls run on the cluster that is in effect (:class:`~automl_ext.parallel.cluster.Cluster`): on the nodes of Ray,
    else in ``workers`` processes, or in this process if ``workers`` is 1. A call whose process or node dies is
    repeated.

    Args:
        function: the function to call; it is pickled. Arguments and results are pickled too, tensors by value.
        workers: number of calls at the same time.
        pending: tasks that are started at once, such as those that were in flight when a run was interrupted. The queue
            keeps its tasks in this deque.
        arguments: returns the arguments of the call for a task; by default a task is the tuple of its arguments.
        ahead: number of pending tasks at which :meth:`fill` stops adding; by default ``workers``.

    Attributes:
        pending: the tasks whose results :meth:`next` has not returned, oldest first.

    Raises:
        ValueError: ``workers`` is below 1.
        UserError: the cluster has no node for a call.
    """

    def __init__(
        self,
        function: Callable[..., Result],
        workers: int,
        pending: deque[Task] | None = None,
        arguments: Callable[[Task], tuple[Any, ...]] | None = None,
        ahead: int | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers: expected at least 1, got {workers}")
        self.workers, self.ahead, self.arguments = workers, ahead or workers, arguments
        self.pending: deque[Task] = deque() if pending is None else pending
        self.calls: deque[_Call] = deque()  # one for each pending task
        self.waiting: deque[_Call] = deque()
        self.running: list[_Call] = []
        self.backend: Backend = current_cluster().backend(function, workers)

    def add(self, task: Task) -> None:
        """Start a task, or queue it until a worker is free."""
        self.pending.append(task)
        self._call(task)

    def fill(self, propose: Callable[[], Task | None]) -> None:
        """Add the tasks that ``propose`` returns, until enough are in flight or it returns None."""
        while len(self.pending) < self.ahead and (task := propose()) is not None:
            self.add(task)

    def next(self) -> tuple[Task, Result]:
        """Wait for the oldest task. Remove it from :attr:`pending`, and return it and its result.

        Raises:
            WorkerDied: processes were killed ``DEATHS`` times during this call. The task stays pending.
            Exception: the function raised it.
        """
        result = self._wait()
        return self.pending.popleft(), result

    def each(self, tasks: Iterable[Task] = ()) -> Iterator[tuple[Task, Result]]:
        """Yield the pending tasks and ``tasks``, each with its result."""
        waiting = iter(tasks)
        while True:
            self.fill(lambda: next(waiting, None))
            if not self.pending:
                return
            yield self.next()

    def repeat_alone(self) -> tuple[Task, Result | None]:
        """Repeat the oldest task after :class:`WorkerDied` while no other task runs, then start the others again.

        This is because any of the tasks in flight may have killed the processes. If the task was the only one, it is
        not repeated.

        Returns:
            The task, and its result or None if it killed the processes.
        """
        result = None
        self._stop()
        if len(self.pending) > 1:
            self._call(self.pending[0])
            with contextlib.suppress(WorkerDied):
                result = self._wait()
            self._stop()
        oldest = self.pending.popleft()
        for task in self.pending:
            self._call(task)
        return oldest, result

    def _stop(self) -> None:
        """Stop all calls; their tasks stay in :attr:`pending`."""
        self.calls.clear()
        self.waiting.clear()
        self.running.clear()
        self.backend.close()

    def _call(self, task: Any) -> None:
        arguments = task if self.arguments is None else self.arguments(task)
        call = _Call(pickle.dumps(arguments))  # here: torch.multiprocessing would share tensors
        self.calls.append(call)
        self.waiting.append(call)
        self._start()

    def _wait(self) -> Result:
        """Wait for the oldest call and return its result."""
        oldest = self.calls[0]
        self._collect(block=False)
        while not oldest.finished:
            self._collect(block=True)
        self.calls.popleft()
        result: Result = self.backend.result(oldest.handle)
        return result

    def _start(self) -> None:
        """Start waiting calls, up to ``workers`` at the same time."""
        while self.waiting and len(self.running) < self.workers:
            call = self.waiting.popleft()
            call.handle = self.backend.start(call.arguments)
            self.running.append(call)

    def _collect(self, block: bool) -> None:
        """Record which calls have finished, and start others in their place, lost calls first."""
        self._start()
        done = self.backend.wait([call.handle for call in self.running], block)
        finished = [call for call, is_done in zip(self.running, done, strict=True) if is_done]
        self.running = [call for call, is_done in zip(self.running, done, strict=True) if not is_done]
        for call in reversed(finished):
            death = self.backend.lost(call.handle)
            if death is not None:
                call.deaths += death == "process"  # the loss of a node has other causes than the call
                self.waiting.appendleft(call)
            else:
                call.finished = True
        if any(call.deaths >= DEATHS for call in finished):
            raise WorkerDied(
                f"a worker process was killed {DEATHS} times during the same call, or ended itself (a crash, "
                f"os._exit); is there enough memory? (A script must start its runs below {GUARD})"
            )
        self._start()

    def __enter__(self) -> Jobs[Task, Result]:
        try:
            for task in self.pending:
                self._call(task)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
