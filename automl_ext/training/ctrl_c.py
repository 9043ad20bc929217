"""Ctrl-C that waits for the end of the work in hand, so that it can be saved."""

from __future__ import annotations

import os
import signal
import threading
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
