"""Ctrl-C: in a command, in a training that saves before it ends, and in worker processes; SIGTERM as Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

MESSAGE = b"\nstopping with a checkpoint; Ctrl-C again stops at once\n"
WEAK_REFERENCES = ("/weakref.py", "/_weakrefset.py")
_main_process = os.getpid()  # that of the command: sigterm_as_ctrl_c sets it


class CtrlC:
    """A context manager in which the first Ctrl-C only sets ``requested``; the second one interrupts as usual.

    In the context :func:`sigterm_as_ctrl_c`, SIGTERM does the same. A signal that the program ignores or handles in its
    own way is left alone, and so is every signal outside of the main thread.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> CtrlC:
        for number in (signal.SIGINT, signal.SIGTERM) if _in_main_thread() else ():
            before = signal.getsignal(number)
            if before in (signal.default_int_handler, interrupt, terminate):
                self._before[number] = before
                signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _handle(self, number: int, frame: Any) -> None:
        if self.requested or (number == signal.SIGTERM and os.getpid() != _main_process):
            self._before[number](number, frame)
        self.requested = True
        if sys.stderr is not None:  # None: it is closed, and a file of the run may have its descriptor
            with contextlib.suppress(OSError):
                os.write(2, MESSAGE)  # print may be in use when the signal arrives


def interrupt(number: int, frame: Any) -> None:
    """Handle a signal: raise KeyboardInterrupt, or end the process by the signal where that could be lost.

    Many libraries import others on first use. There, KeyboardInterrupt could be hidden or replaced by another
    exception, and it would leave modules half imported. In ``__del__`` and in callbacks of weak references, Python
    prints exceptions and goes on.
    """
    while frame is not None:
        file, function = frame.f_code.co_filename, frame.f_code.co_name
        if file.startswith("<frozen importlib") or file.endswith(WEAK_REFERENCES) or function == "__del__":
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        frame = frame.f_back
    raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Handle Ctrl-C by :func:`interrupt` in this context, if it would otherwise end the process by the signal."""
    if not _in_main_thread() or signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def ignore_ctrl_c() -> None:
    """Block SIGINT in this worker process, even if it was forked from a server that someone else started."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


@contextlib.contextmanager
def workers_ignore_ctrl_c() -> Iterator[None]:
    """Processes that are started in this context never receive SIGINT, which a terminal sends to all processes.

    This process handles SIGINT and then ends them. A SIGINT that it gets within the context is delivered at the end,
    and so is a SIGTERM: a process that is just being started would be left, and print a traceback.
    """
    process, terms = os.getpid(), list[int]()

    def later(number: int, frame: Any) -> None:
        if os.getpid() != process:  # forked within the context
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        terms.append(number)

    handler = signal.getsignal(signal.SIGTERM) if _in_main_thread() else None
    if callable(handler):
        signal.signal(signal.SIGTERM, later)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if callable(handler):
            signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if terms:
            signal.raise_signal(signal.SIGTERM)


def terminate(number: int, frame: Any) -> None:
    """Handle SIGTERM by :func:`interrupt` in the command's process; simply end processes that were forked from it."""
    if os.getpid() != _main_process:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    interrupt(number, frame)


@contextlib.contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Treat SIGTERM, which containers send to the main process before they kill it, as Ctrl-C in this context.

    A command that a script starts with ``&`` ignores Ctrl-C, but not SIGTERM. Outside of the main thread, and if the
    program handles SIGTERM in its own way, this context does nothing.
    """
    global _main_process
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    _main_process = os.getpid()
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
