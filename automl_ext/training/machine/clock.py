"""The time that budgets count, and a clock that adds up the wall-clock and CPU seconds of a run.

Budgets count CPU-seconds on a CPU, so that other work on the machine does not change a result, and wall-clock seconds
on a GPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch  # not loaded here: tables are fitted without it


def budget_clock(device: torch.device) -> Callable[[], float]:
    """Return the clock of budgets on a device, in seconds: CPU time of this process, or wall-clock time on a GPU."""
    return time.process_time if device.type == "cpu" else time.perf_counter


class Clock:
    """Adds up the seconds spent inside ``with clock`` blocks; a checkpoint can hold the sums.

    Attributes:
        wall: wall-clock seconds.
        cpu: CPU seconds of all threads.

    Raises:
        ValueError: a time read from a checkpoint is not a finite number of at least 0.
    """

    wall: float
    cpu: float

    def __init__(self) -> None:
        self.wall, self.cpu = 0.0, 0.0

    def __setattr__(self, name: str, value: float) -> None:
        if type(value) not in (int, float) or not 0 <= value < math.inf:
            raise ValueError(f"{name}: expected seconds, a number of at least 0, got {value!r}")
        super().__setattr__(name, value)

    def budget(self, device: torch.device) -> float:
        """Return the seconds that a budget on ``device`` counts."""
        return self.cpu if device.type == "cpu" else self.wall

    def __enter__(self) -> None:
        self._wall_start, self._cpu_start = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._wall_start
        self.cpu += time.process_time() - self._cpu_start
