"""Progress on standard error: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

from automl_ext.training.numbers import number

PAUSE = 1.0  # smallest time between lines, in seconds; a look-up in a table takes microseconds
SHOWN = 6  # largest number of values in a line


class Progress:
    """A progress bar from ``start`` to ``total``: a context manager with :meth:`advance`, or an iterator.

    ``for step in progress`` yields ``start … total - 1``. If standard error is not a terminal, :meth:`report` prints
    lines instead. Nothing is shown if the logger ``automl_ext`` suppresses warnings. With ``percent``, the bar counts
    the percentage of a budget, and the lines count steps.
    """

    def __init__(self, total: int, description: str, start: int = 0, percent: bool = False) -> None:
        self.total, self.description, self.start, self.percent = total, description, start, percent
        self._bar: Any = None
        self._task: Any = None
        self._lines = False
        self._began, self._printed = time.monotonic(), -math.inf

    def __enter__(self) -> Progress:
        if not logging.getLogger("automl_ext").isEnabledFor(logging.WARNING):
            return self
        self._lines = sys.stderr is None or not sys.stderr.isatty()
        if not self._lines:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self.description, total=self.total, completed=self.start)
        return self

    def __exit__(self, *_: object) -> None:
        self._lines = False
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __iter__(self) -> Iterator[int]:
        with self:
            for step in range(self.start, self.total):
                yield step
                self.advance()

    def advance(self, steps: int = 1, description: str | None = None) -> None:
        """Advance by ``steps``; a new ``description`` replaces the text next to the bar."""
        if self.percent:
            self.description = description or self.description
        if self._bar is not None:
            self._bar.update(self._task, advance=steps, description=description)

    def report(self, step: int, scalars: dict[str, float]) -> None:
        """Print a line with the first measurements, at most one per second; nothing while there is a bar."""
        now = time.monotonic()
        if self._lines and (now >= self._printed + PAUSE or (step >= self.total and not self.percent)):
            self._printed = now
            of = f"/{self.total:,}" if self.total and not self.percent else ""
            values = [f"{name} {number(value)}" for name, value in list(scalars.items())[:SHOWN]]
            what = f"{self.description}, step" if self.percent else self.description
            say(f"{what} {step:,}{of}, {now - self._began:.0f} s: {', '.join(values)}")


def say(text: str) -> None:
    """Print a line to standard error, unless the logger ``automl_ext`` suppresses warnings."""
    if sys.stderr is None or not logging.getLogger("automl_ext").isEnabledFor(logging.WARNING):
        return  # None: it is closed, and print would write to standard output
    with contextlib.suppress(OSError):  # a closed pipe must not end a run
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Show no progress inside the block, because the progress bars of simultaneous runs would overwrite each other."""
    logger = logging.getLogger("automl_ext")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
