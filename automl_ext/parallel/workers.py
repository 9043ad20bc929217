"""Work done in several processes, whose results come in the order in which it was given out."""

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
DEATHS = 3  # in a row, of processes that are given the same work


class Workers(Generic[Result]):
    """Calls ``function`` in ``count`` processes; with one, in this process.

    A process that is killed is replaced, and what it and the others had not finished is given out again. Every process
    ends with this one, however this one ends.

    Args:
        function: pickled once per process; so are arguments and results, tensors by value.

    Raises:
        ValueError: ``count`` below 1.
    """

    def __init__(self, function: Callable[..., Result], count: int) -> None:
        if count < 1:
            raise ValueError(f"workers: expected at least 1, got {count}")
        self.function, self.count = function, count
        self.pending: deque[tuple[bytes, Future[bytes] | None]] = deque()
        self.pool: ProcessPoolExecutor | None = None

    def submit(self, *arguments: Any) -> None:
        # Pickled here: torch would send tensors as files that vanish with the process that made them.
        self.pending.append((pickle.dumps(arguments), None))
        if self.count > 1:
            try:
                self._give_out()
            except BrokenProcessPool:
                self._clear()  # next() gives out again

    def next(self) -> Result:
        """The result of the oldest work that is not done; waits for it.

        Raises:
            UserError: processes died again and again over it.
        """
        if self.count == 1:
            call, _ = self.pending.popleft()
            return self.function(*pickle.loads(call))
        for _ in range(DEATHS):
            try:
                self._give_out()
                future = self.pending[0][1]
                assert future is not None
                result = future.result()
            except BrokenProcessPool:
                self._clear()
                continue
            self.pending.popleft()
            return pickle.loads(result)
        raise UserError(f"a worker process was killed {DEATHS} times over the same work: is there too little memory?")

    def _give_out(self) -> None:
        """Submit what has not been submitted; BrokenProcessPool when a process has died."""
        if self.pool is None:
            self.pool = ProcessPoolExecutor(
                self.count,
                multiprocessing.get_context("spawn"),  # a fork would copy locks that torch's threads hold
                initializer=_prepare,
                initargs=(pickle.dumps(self.function), max(torch.get_num_threads() // self.count, 1)),
            )
        for i, (call, future) in enumerate(self.pending):
            if future is None:
                self.pending[i] = (call, self.pool.submit(_call, call))

    def _clear(self) -> None:
        """After a death: what has not been finished waits to be given out to new processes."""
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
                process.terminate()  # what is still being evaluated is of no use to anyone
            self.pool.shutdown(wait=True, cancel_futures=True)
            self.pool = None


_function: Callable[..., Any]  # in a worker process


def _prepare(function: bytes, threads: int) -> None:
    global _function
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _function = pickle.loads(function)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(arguments: bytes) -> bytes:
    return pickle.dumps(_function(*pickle.loads(arguments)))
