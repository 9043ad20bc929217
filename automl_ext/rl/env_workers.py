"""Environments in worker processes, each in its own: deaths, hangs and errors become one line that names which.

The time limit covers ``reset`` and ``step``. It cannot cover the constructor: Gymnasium makes the first environment in
this process to learn its spaces, and nothing can stop code that hangs in our own process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import _async_worker

from automl_ext.rl.env_guard import EnvError, fault

PATIENCE = 5.0  # seconds until a worker that was asked to end is killed


class WorkerVectorEnv(AsyncVectorEnv):
    """As Gymnasium's AsyncVectorEnv in mode SAME_STEP; what goes wrong in a constructor is an EnvError as well."""

    def __init__(self, makers: Sequence[Callable[[], gymnasium.Env]]) -> None:
        with _quiet():
            try:
                super().__init__(makers, autoreset_mode=AutoresetMode.SAME_STEP, worker=_work)
            except BaseException as error:
                if not hasattr(self, "processes"):
                    raise  # the first environment, in this process
                dead = dead_workers(self) if isinstance(error, (EOFError, OSError)) else ""
                terminate(self)
                if dead:
                    raise EnvError(f"{dead} while its environment was made") from None
                raise


def reset(vector: AsyncVectorEnv, seed: int, limit: float) -> tuple[Any, dict[str, Any]]:
    """``vector.reset`` with a time limit in seconds; see :func:`step`."""
    with _telling(vector, "reset()", limit):
        vector.reset_async(seed=seed)
        return vector.reset_wait(timeout=limit)


def step(vector: AsyncVectorEnv, actions: np.ndarray, limit: float) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
    """``vector.step`` with a time limit in seconds.

    After any exception the workers may be anywhere: only :func:`terminate` is left.

    Raises:
        EnvError: a worker died, or took longer.
    """
    with _telling(vector, "step()", limit):
        vector.step_async(actions)
        return vector.step_wait(timeout=limit)


def close(vector: AsyncVectorEnv) -> None:
    """Close the environments and end the workers; those that do not end are killed."""
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
    """End the workers without asking them: some may never answer."""
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


def dead_workers(vector: AsyncVectorEnv) -> str:
    """The workers that ended and how, after a pipe broke: the system may report a process later than its pipe."""
    wait([process.sentinel for process in vector.processes], timeout=PATIENCE)
    ended = [(i, process) for i, process in enumerate(vector.processes) if not process.is_alive()]
    # One that raised ends with exit code 0 by itself: it is not the news where another was killed.
    ended = [(i, process) for i, process in ended if process.exitcode] or ended
    return ", ".join(f"the worker process of environment {i} died ({how_ended(process)})" for i, process in ended)


def how_ended(process: Any) -> str:
    """The exit code of a multiprocessing process, or the name of the signal that killed it."""
    code = process.exitcode
    if code is None or code >= 0:
        return "no exit code yet" if code is None else f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def _work(
    index: int, maker: Callable[[], gymnasium.Env], pipe: Connection, parent_pipe: Connection, *rest: Any
) -> None:
    """Gymnasium's worker, but a failing constructor is reported as a failing step is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends us
    try:
        env = maker()
    except BaseException as error:
        told = fault(f"environment {index}", "its constructor", error)
        parent_pipe.close()
        pipe.recv()  # the check of spaces, which every worker is asked for first
        rest[1].put((index, EnvError, str(told), ""))
        pipe.send((None, False))
        return
    _async_worker(index, lambda: env, pipe, parent_pipe, *rest)


@contextlib.contextmanager
def _telling(vector: AsyncVectorEnv, call: str, limit: float) -> Iterator[None]:
    try:
        with _quiet():
            yield
    except multiprocessing.TimeoutError:
        late = [i for i, pipe in enumerate(vector.parent_pipes) if pipe is not None and not pipe.poll()]
        names = ", ".join(map(str, late))
        raise EnvError(
            f"environment {names}: {call} took longer than {limit:g} s, the limit of --step-timeout"
        ) from None
    except (EOFError, OSError) as error:
        dead = dead_workers(vector)
        raise EnvError(dead or f"{call}: the pipe to a worker process broke: {error!r}") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the worker's traceback that Gymnasium prints: the exception that follows says it in one line."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*ERROR: (Received the following|Raising the last|Traceback)")
        warnings.filterwarnings("ignore", message=r".*ERROR: .*\bline \d+, in ")
        yield
