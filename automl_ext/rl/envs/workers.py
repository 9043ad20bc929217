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
    """Gymnasium's AsyncVectorEnv in mode SAME_STEP, which ends its workers whatever their state.

    Args:
        makers: functions that make an environment each.
        limit: time limit of a reset or a step, in seconds.

    Raises:
        EnvError: in the constructor, ``reset`` or ``step``: a worker failed, died or exceeded the limit.
    """

    def __init__(self, makers: Sequence[Callable[[], gymnasium.Env]], limit: float) -> None:
        self.limit, self.broken = limit, False  # broken: some workers may never reply
        try:
            super().__init__(makers, autoreset_mode=AutoresetMode.SAME_STEP, worker=_work)
        except BaseException:
            if hasattr(self, "processes"):  # absent if the first environment failed in this process
                self.close(terminate=True)
            raise

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        with self._translated("reset()"):
            return super().reset(**kwargs)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        with self._translated("step()"):
            return super().step(actions)

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Close the environments and end the workers; kill those that do not end."""
        if not (terminate or self.broken):
            for pipe in self.parent_pipes:
                with contextlib.suppress(OSError):
                    pipe.send(("close", None))
            end = time.monotonic() + PATIENCE
            for process in self.processes:
                process.join(timeout=max(0.0, end - time.monotonic()))
        terminate_all(self.processes)
        for pipe in self.parent_pipes:
            if pipe is not None:  # a worker that failed has none
                with contextlib.suppress(OSError):
                    pipe.close()

    def _check_spaces(self) -> None:
        self._set_limit()
        with self._translated("its constructor"):
            super()._check_spaces()

    def _set_limit(self) -> None:
        """Set the time limit for replies of workers.

        The kernel enforces it, without a cost per step. There is no limit where pipes are not sockets (Windows).
        """
        duration = struct.pack("ll", int(self.limit), int(self.limit % 1 * 1e6))
        for pipe in self.parent_pipes:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(pipe.fileno())) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, duration)

    def _raise_if_errors(self, successes: Any) -> None:
        """Raise without the worker tracebacks that Gymnasium prints as warnings."""
        if not all(successes):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                super()._raise_if_errors(successes)

    @contextlib.contextmanager
    def _translated(self, call: str) -> Iterator[None]:
        try:
            yield
        except BlockingIOError as error:  # the time limit of the pipe
            self.broken = True
            first = self._failed_worker(error) or 0  # replies are read in order; later ones are unread
            later = enumerate(self.parent_pipes[first + 1 :], first + 1)
            late = [first] + [i for i, pipe in later if pipe is not None and not pipe.poll()]
            numbers, limit = ", ".join(map(str, late)), f"{self.limit:g} s, the limit of --step-timeout"
            raise EnvError(f"environment {numbers}: {call} took longer than {limit}") from None
        except (EOFError, OSError) as error:
            self.broken = True
            worker = self._failed_worker(error)
            if worker is None:
                raise EnvError(f"a worker process failed in {call}: {error!r}") from None
            process = self.processes[worker]
            process.join(timeout=PATIENCE)
            ended = how_ended(process)
            raise EnvError(f"the worker process of environment {worker} died ({ended}) in {call}") from None
        except BaseException:  # Ctrl-C included
            self.broken = True
            raise

    def _failed_worker(self, error: BaseException) -> int | None:
        """Return the worker whose pipe raised ``error``, read from the traceback.

        The list of dead processes is not reliable: there may be several, and a death is reported after a broken pipe.
        """
        for frame, _ in traceback.walk_tb(error.__traceback__):
            for i, pipe in enumerate(self.parent_pipes):
                if pipe is not None and frame.f_locals.get("self") is pipe:
                    return i
        return None


def terminate_all(processes: Sequence[Any]) -> None:
    """Terminate multiprocessing processes without a request, since some may never reply, and wait for their end."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(timeout=PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()


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
