"""An observer of a run: code outside of the training loop that sees the logged measurements, and may end the run.

    with observing(observer):
        train(config, out)  # Run.log calls observer(run directory, step, scalars)

An exception that the observer raises ends the run as any other exception does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path

Observer = Callable[[Path, int, Mapping[str, float]], None]
_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


@contextlib.contextmanager
def observing(observer: Observer | None) -> Iterator[None]:
    """Let ``observer`` see the measurements of all runs inside the block; None: no observer."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def observe(run: Path, step: int, scalars: Mapping[str, float]) -> None:
    """Pass measurements, which are in ``metrics.jsonl`` already, to the observer if there is one."""
    if (observer := _observer.get()) is not None:
        observer(run, step, scalars)
