"""A pool of worker processes whose results come in the order of submission."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch

from automl_ext.training.errors import UserError

Result = TypeVar("Result")
DEATHS = 3  # largest number of process deaths during the same call


class Workers(Generic[Result]):
    """Calls ``function`` in ``count`` processes. With one worker, the calls run in this process.

    If a process is killed, all processes are replaced and unfinished calls are submitted again. Worker processes end
    when this process ends, even if it is killed.

    Args:
        function: the function to call; it is pickled once per process. Arguments and results are pickled too, tensors
            by value.
        count: number of workers.

    Raises:
        ValueError: ``count`` is below 1.
    """

    def __init__(self, function: Callable[..., Result], count: int) -> None:
        if count < 1:
            raise ValueError(f"workers: expected at least 1, got {count}")
        self.function, self.count = function, count
        self.pending: deque[tuple[bytes, Future[bytes] | None]] = deque()
        self.pool: ProcessPoolExecutor | None = None

    def submit(self, *arguments: Any) -> None:
        """Queue a call of the function."""
        # Pickle here: torch.multiprocessing would share tensors through files that vanish with their process.
        self.pending.append((pickle.dumps(arguments), None))
        if self.count > 1:
            try:
                self._submit_pending()
            except BrokenProcessPool:
                self._discard_pool()  # next() then submits the calls again

    def next(self) -> Result:
        """Wait for the oldest pending call and return its result.

        Raises:
            UserError: processes were killed ``DEATHS`` times during this call.
        """
        if self.count == 1:
            call, _ = self.pending.popleft()
            return self.function(*pickle.loads(call))
        for _ in range(DEATHS):
            try:
                self._submit_pending()
                future = self.pending[0][1]
                assert future is not None
                result = future.result()
            except BrokenProcessPool:
                self._discard_pool()
                continue
            self.pending.popleft()
            return pickle.loads(result)
        raise UserError(f"a worker process was killed {DEATHS} times during the same call; is there enough memory?")

    def _submit_pending(self) -> None:
        """Submit the pending calls to the pool. Raises BrokenProcessPool if a process has died."""
        if self.pool is None:
            self.pool = ProcessPoolExecutor(
                self.count,
                multiprocessing.get_context("spawn"),  # fork would copy locks held by threads of torch
                initializer=_prepare,
                initargs=(pickle.dumps(self.function), max(torch.get_num_threads() // self.count, 1)),
            )
        for i, (call, future) in enumerate(self.pending):
            if future is None:
                self.pending[i] = (call, self.pool.submit(_call, call))

    def _discard_pool(self) -> None:
        """Discard the broken pool and mark unfinished calls for submission to a new one."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
            self.pool = None
        for i, (call, future) in enumerate(self.pending):
            lost = future is not None and (future.cancelled() or isinstance(future.exception(), BrokenProcessPool))
            if lost:
                self.pending[i] = (call, None)

    def __enter__(self) -> Workers[Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pool is not None:
            for process in list((self.pool._processes or {}).values()):
                process.terminate()  # the results of unfinished calls are not needed
            self.pool.shutdown(wait=True, cancel_futures=True)
            self.pool = None


_function: Callable[..., Any]  # set in worker processes only


def _prepare(function: bytes, threads: int) -> None:
    """Initialize a worker process."""
    global _function
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _function = pickle.loads(function)


def _end_with_parent() -> None:
    """Wait until the parent process ends, then end this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(arguments: bytes) -> bytes:
    return pickle.dumps(_function(*pickle.loads(arguments)))
