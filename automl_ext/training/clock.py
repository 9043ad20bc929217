"""Time spent."""

from __future__ import annotations

import time


class Clock:
    """Wall and CPU seconds (of all threads) spent inside ``with clock``, over interruptions."""

    def __init__(self) -> None:
        self.wall, self.cpu = 0.0, 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._start[0]
        self.cpu += time.process_time() - self._start[1]
