"""Calls that run in processes on this machine."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import reduction
from multiprocessing.process import BaseProcess
from typing import IO, Any, NamedTuple

import torch

from automl_ext.parallel.backend import Death, dumps_result
from automl_ext.training.ctrl_c import ignore_ctrl_c, workers_ignore_ctrl_c
from automl_ext.training.machine.memory import keep_freed_memory
from automl_ext.training.machine.worker_context import end_server, worker_context

PATIENCE = 1.0  # seconds without a result after which dead processes are looked for


class _Handle(NamedTuple):
    future: Future[bytes]
    pool: ProcessPoolExecutor


class Processes:
    """A :class:`~automl_ext.parallel.backend.Backend` of processes, which are started with the first call.

    If a process is killed, all processes are replaced, and the calls that they were running are lost. The processes end
    when this process ends, even if it is killed.

    Args:
        function: the function to call; it is pickled once per set of processes.
        threads: number of threads of PyTorch in each process.
    """

    def __init__(self, function: Callable[..., Any], count: int, threads: int) -> None:
        self.function, self.count, self.threads = function, count, threads
        self.pool: ProcessPoolExecutor | None = None

    def start(self, call: bytes) -> _Handle:
        if self.pool is None:
            self.pool = ProcessPoolExecutor(
                self.count,
                worker_context(),
                initializer=_prepare,
                initargs=(_InFile.write(self.function), self.threads),
            )
        try:
            with workers_ignore_ctrl_c():  # submit starts processes
                return _Handle(self.pool.submit(_call, call), self.pool)
        # A process died while no result was awaited, or the server from which processes are forked.
        except (BrokenProcessPool, EOFError, ConnectionError) as error:
            if not isinstance(error, BrokenProcessPool):
                end_server()
            failed: Future[bytes] = Future()
            failed.set_exception(BrokenProcessPool(str(error)))
            return _Handle(failed, self.pool)

    def wait(self, handles: Sequence[_Handle], block: bool) -> list[bool]:
        futures = [handle.future for handle in handles]
        while block and not wait(futures, PATIENCE, FIRST_COMPLETED).done:
            if self.pool and any(process.exitcode is not None for process in _processes(self.pool)):
                _end(self.pool)  # it died while it wrote a result, and the pool waits for the rest
        return [future.done() for future in futures]

    def lost(self, handle: _Handle) -> Death | None:
        future = handle.future
        lost = future.cancelled() or isinstance(future.exception(), BrokenProcessPool)
        if lost and handle.pool is self.pool:
            self.pool.shutdown(wait=True, cancel_futures=True)
            self.pool = None
        return "process" if lost else None

    def result(self, handle: _Handle) -> Any:
        return pickle.loads(handle.future.result())

    def close(self) -> None:
        if self.pool is not None:
            _end(self.pool)  # the results of unfinished calls are not needed
            self.pool.shutdown(wait=True, cancel_futures=True)
            self.pool = None


def _processes(pool: ProcessPoolExecutor) -> list[BaseProcess]:
    return list((pool._processes or {}).values())


def _end(pool: ProcessPoolExecutor) -> None:
    """End the processes of a pool, which cannot be used afterwards.

    If one of them is writing a result, the pool's thread reads until no process holds the pipe's end for writing. So
    this process must close its copy of it.
    """
    for process in _processes(pool):
        process.terminate()
    pool._result_queue._writer.close()  # type: ignore[attr-defined]


class _InFile:
    """An object in a file whose descriptor new processes inherit.

    multiprocessing writes the arguments of a new process into a pipe. If they are larger than the pipe's buffer and the
    process dies before it reads them, the write never ends. The file has no name, so nothing is left if this process is
    killed.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    @classmethod
    def write(cls, value: Any) -> _InFile:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as processes may start
        pickle.dump(value, file)
        file.flush()
        return cls(file)

    def read(self) -> Any:
        with mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return pickle.loads(content)

    def __reduce__(self) -> tuple[Any, ...]:
        return _inherited, (reduction.DupFd(self.file.fileno()),)


def _inherited(descriptor: Any) -> _InFile:
    return _InFile(open(descriptor.detach(), "rb"))


_function: Callable[..., Any]  # set in worker processes only


def _prepare(function: _InFile, threads: int) -> None:
    """Initialize a worker process."""
    global _function
    ignore_ctrl_c()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    keep_freed_memory()
    with function.file:
        _function = function.read()


def _end_with_parent() -> None:
    """Wait until the parent process ends, then end this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(arguments: bytes) -> bytes:
    return dumps_result(_function(*pickle.loads(arguments)))
