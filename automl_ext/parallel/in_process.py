"""Calls that run in this process, one after the other."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any


class InProcess:
    """A :class:`~automl_ext.parallel.backend.Backend` without other processes: a call runs when its result is read."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def start(self, call: bytes) -> bytes:
        return call

    def wait(self, handles: Sequence[bytes], block: bool) -> list[bool]:
        return [True] * len(handles)

    def lost(self, handle: bytes) -> None:
        return None

    def result(self, handle: bytes) -> Any:
        return self.function(*pickle.loads(handle))

    def close(self) -> None:
        pass
