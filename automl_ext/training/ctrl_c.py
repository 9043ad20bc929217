"""Ctrl-C that waits for the end of the work in hand, so that it can be saved; SIGTERM as Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from automl_ext.training import ranks

MESSAGE = b"\nstopping with a checkpoint; Ctrl-C again stops at once\n"


class CtrlC:
    """A context manager in which the first Ctrl-C only sets ``requested``; the second one interrupts as usual.

    Nothing changes in other threads than the main one, where the program handles Ctrl-C in its own way, and with
    several ranks, which would stop after different steps.
    """

    def __init__(self) -> None:
        self.requested = False
        self._handles = False

    def __enter__(self) -> CtrlC:
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and ranks.count() == 1 and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
            self._handles = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handles:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        os.write(2, MESSAGE)  # print may be in use when the signal arrives


@contextlib.contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Treat SIGTERM, which containers send to the main process before they kill it, as Ctrl-C in this context.

    Nothing changes where Ctrl-C is ignored, in other threads than the main one, with several ranks, and where the
    program handles SIGTERM in its own way.
    """

    def handle(number: int, frame: Any) -> None:
        if os.getpid() != process or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a forked child, or Ctrl-C is ignored
            signal.raise_signal(signal.SIGTERM)
        else:
            signal.raise_signal(signal.SIGINT)

    process = os.getpid()
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or ranks.count() > 1 or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
