"""Intermediate values of a trial, by which it may be pruned."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Judge = Callable[[int, float], bool]  # (step, value) -> whether the trial ends


class Pruned(Exception):
    """Raised inside an objective to end an unpromising trial."""


class Reports:
    """The intermediate values of one trial, in the order of their steps.

    Args:
        judge: decides after each value whether the trial ends; None: it does not.
    """

    def __init__(self, judge: Judge | None = None) -> None:
        self.judge = judge
        self.values: list[tuple[int, float]] = []

    def add(self, step: int, value: float) -> None:
        """Add a value; ignore one of an earlier step, which a resumed trial repeats.

        Raises:
            Pruned: the trial is unpromising.
        """
        if self.values and step <= self.values[-1][0]:
            return
        self.values.append((step, value))
        if self.judge is not None and self.judge(step, value):
            raise Pruned(f"unpromising at step {step}")


_reports: ContextVar[Reports | None] = ContextVar("reports", default=None)


@contextlib.contextmanager
def reporting(reports: Reports) -> Iterator[None]:
    """Let :func:`report` add to ``reports`` inside the block."""
    token = _reports.set(reports)
    try:
        yield
    finally:
        _reports.reset(token)


def report(step: int, value: float) -> None:
    """Report an intermediate value from inside an objective; outside of a trial, do nothing.

    Args:
        step: number of steps or epochs so far, larger than at the last report.
        value: the value that the objective would return now.

    Raises:
        Pruned: the trial is unpromising. Do not catch this exception.
    """
    if (reports := _reports.get()) is not None:
        reports.add(int(step), float(value))
