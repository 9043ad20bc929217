"""Environments in one worker process each. Crashes, hangs and errors become one-line messages that name the worker.

The time limit covers the workers. It does not cover the first environment's constructor, which Gymnasium also calls in
this process to read the spaces: code that hangs in our own process cannot be stopped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import _async_worker

from automl_ext.rl.envs.guard import EnvError, fault

PATIENCE = 5.0  # seconds between asking a worker to end and killing it


class WorkerVectorEnv(AsyncVectorEnv):
    """Gymnasium's AsyncVectorEnv in mode SAME_STEP. A constructor that fails in a worker also raises EnvError."""

    def __init__(self, makers: Sequence[Callable[[], gymnasium.Env]], limit: float) -> None:
        self.limit = limit
        try:
            super().__init__(makers, autoreset_mode=AutoresetMode.SAME_STEP, worker=_work)
        except BaseException:
            if hasattr(self, "processes"):  # absent if the first environment failed in this process
                terminate(self)
            raise

    def _check_spaces(self) -> None:
        set_limit(self, self.limit)
        with naming_faults(self, "its constructor", self.limit):
            super()._check_spaces()

    def _raise_if_errors(self, successes: Any) -> None:
        """Raise without the worker tracebacks that Gymnasium prints as warnings."""
        if not all(successes):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                super()._raise_if_errors(successes)


def set_limit(vector: AsyncVectorEnv, limit: float) -> None:
    """Set a time limit for replies of workers, in seconds.

    The kernel enforces it, without a cost per step. There is no limit where pipes are not sockets (Windows).
    """
    duration = struct.pack("ll", int(limit), int(limit % 1 * 1e6))
    for pipe in vector.parent_pipes:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(pipe.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, duration)


def close(vector: AsyncVectorEnv, broken: bool) -> None:
    """Close the environments and end the workers; kill those that do not end. ``broken``: some may never reply."""
    if broken:
        terminate(vector)
        return
    if vector.closed:
        return
    for pipe in vector.parent_pipes:
        with contextlib.suppress(OSError, AttributeError):  # a worker that failed has no pipe
            pipe.send(("close", None))
    end = time.monotonic() + PATIENCE
    for process in vector.processes:
        process.join(timeout=max(0.0, end - time.monotonic()))
    terminate(vector)


def terminate(vector: AsyncVectorEnv) -> None:
    """Terminate the workers without a request, since some may never reply."""
    for process in vector.processes:
        process.terminate()
    for process in vector.processes:
        process.join(timeout=PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
    for pipe in vector.parent_pipes:
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    vector.closed = True


def broken_worker(vector: AsyncVectorEnv, error: BaseException) -> int | None:
    """Return the worker whose pipe raised ``error``, read from the traceback.

    The list of dead processes is not reliable: there may be several, and a death is reported after a broken pipe.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for i, pipe in enumerate(vector.parent_pipes):
            if pipe is not None and frame.f_locals.get("self") is pipe:
                return i
    return None


def how_ended(process: Any) -> str:
    """Describe the exit code of a multiprocessing process, or the signal that killed it."""
    code = process.exitcode
    if code is None or code >= 0:
        return "no exit code yet" if code is None else f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def _work(
    index: int, maker: Callable[[], gymnasium.Env], pipe: Connection, parent_pipe: Connection, *rest: Any
) -> None:
    """Run Gymnasium's worker, and report a failing constructor like a failing step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and then ends this process
    try:
        env = maker()
    except BaseException as error:
        failure = fault(f"environment {index}", "its constructor", error)
        parent_pipe.close()
        pipe.recv()  # discard the first request: Gymnasium asks every worker to check its spaces before anything else
        rest[1].put((index, EnvError, str(failure), ""))
        pipe.send((None, False))
        return
    with contextlib.suppress(EOFError, ConnectionError):  # the pipe breaks if Ctrl-C or a signal kills the parent
        _async_worker(index, lambda: env, pipe, parent_pipe, *rest)


@contextlib.contextmanager
def naming_faults(vector: Any, call: str, limit: float) -> Iterator[None]:
    """Raise EnvError for a call of ``vector`` in which a worker died or exceeded the limit (:func:`set_limit`).

    After an exception the workers are in an unknown state: call :func:`terminate`.
    """
    try:
        yield
    except BlockingIOError as error:  # the time limit of the pipe
        first = broken_worker(vector, error) or 0  # replies are read in order; later ones are unread
        later = enumerate(vector.parent_pipes[first + 1 :], first + 1)
        late = [first] + [i for i, pipe in later if pipe is not None and not pipe.poll()]
        raise EnvError(
            f"environment {', '.join(map(str, late))}: {call} took longer than {limit:g} s, the limit of --step-timeout"
        ) from None
    except (EOFError, OSError) as error:
        worker = broken_worker(vector, error)
        if worker is None:
            raise EnvError(f"a worker process failed in {call}: {error!r}") from None
        process = vector.processes[worker]
        process.join(timeout=PATIENCE)
        raise EnvError(f"the worker process of environment {worker} died ({how_ended(process)}) in {call}") from None
