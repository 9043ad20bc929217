"""A progress bar, shown on terminals only."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any


class Progress:
    """A progress bar from ``start`` to ``total``: a context manager with :meth:`advance`, or an iterator.

    ``for step in progress`` yields ``start … total - 1``. Nothing is shown if standard error is not a terminal, or if
    the logger ``automl_ext`` suppresses warnings.
    """

    def __init__(self, total: int, description: str, start: int = 0) -> None:
        self.total, self.description, self.start = total, description, start
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and logging.getLogger("automl_ext").isEnabledFor(logging.WARNING):
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        if self._bar is not None:
            self._bar.update(self._task, advance=steps, description=description)
