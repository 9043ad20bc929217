"""Calls of one function on a back end; the results come in the order of submission.

    with Workers(function, count) as workers:      where the calls run: automl_ext.parallel.cluster
        workers.submit(*arguments)                 at most ``count`` calls run at the same time
        workers.next()                             the result of the oldest call

What the caller sees depends on ``count`` at most, not on the back end and not on which call was faster.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

from automl_ext.parallel.backend import Backend
from automl_ext.parallel.cluster import current_cluster
from automl_ext.training.errors import UserError
from automl_ext.training.user_code import GUARD

Result = TypeVar("Result")
DEATHS = 3  # number of process deaths during the same call that raises an error


@dataclass
class _Call:
    arguments: bytes  # pickled
    handle: Any = None  # of the back end
    finished: bool = False
    deaths: int = 0


class Workers(Generic[Result]):
    """Calls ``function`` with at most ``count`` calls at the same time.

    The calls run on the cluster that is in effect (:class:`~automl_ext.parallel.cluster.Cluster`): on the nodes of Ray,
    else in ``count`` processes, or in this process if ``count`` is 1. A call whose process or node dies is repeated.

    Args:
        function: the function to call; it is pickled. Arguments and results are pickled too, tensors by value.
        count: number of calls in flight.

    Raises:
        ValueError: ``count`` is below 1.
        UserError: the cluster has no node for a call.
    """

    def __init__(self, function: Callable[..., Result], count: int) -> None:
        if count < 1:
            raise ValueError(f"workers: expected at least 1, got {count}")
        self.function, self.count = function, count
        self.calls: deque[_Call] = deque()  # in the order of submission
        self.waiting: deque[_Call] = deque()
        self.running: list[_Call] = []
        self.backend: Backend = current_cluster().backend(function, count)

    def submit(self, *arguments: Any) -> None:
        """Queue a call of the function."""
        call = _Call(pickle.dumps(arguments))  # here: torch.multiprocessing would share tensors
        self.calls.append(call)
        self.waiting.append(call)
        self._start()

    def next(self) -> Result:
        """Wait for the oldest pending call and return its result.

        Raises:
            UserError: processes were killed ``DEATHS`` times during this call.
            Exception: the function raised it.
        """
        oldest = self.calls[0]
        self._collect(block=False)
        while not oldest.finished:
            self._collect(block=True)
        self.calls.popleft()
        result: Result = self.backend.result(oldest.handle)
        return result

    def cancel(self) -> None:
        """Drop all pending calls, and stop those that run."""
        self.calls.clear()
        self.waiting.clear()
        self.running.clear()
        self.backend.close()

    def _start(self) -> None:
        """Start waiting calls, up to ``count`` at the same time."""
        while self.waiting and len(self.running) < self.count:
            call = self.waiting.popleft()
            call.handle = self.backend.start(call.arguments)
            self.running.append(call)

    def _collect(self, block: bool) -> None:
        """Note which calls have finished, and start others in their place; lost calls come first."""
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
            raise UserError(
                f"a worker process was killed {DEATHS} times during the same call, or ended itself (a crash, "
                f"os._exit); is there enough memory? (A script must start its runs below {GUARD})"
            )
        self._start()

    def __enter__(self) -> Workers[Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
