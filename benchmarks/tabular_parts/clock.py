"""A clock of CPU time, so that other work on a shared machine takes nothing from a contender's budget."""

from __future__ import annotations

import resource
import signal
import time


def use_cpu_clock() -> None:
    """Replace the clocks of the module ``time`` by ones that advance with this process's CPU time.

    The budgets of all contenders then are CPU seconds: each reads one of these clocks, in this process and in one
    thread.
    """
    start, used = {name: getattr(time, name)() for name in ("time", "monotonic", "perf_counter")}, time.process_time()
    for name, begin in start.items():
        setattr(time, name, lambda begin=begin: begin + time.process_time() - used)


def limit_cpu(seconds: float) -> None:
    """End the process by a signal once it has used this many more CPU seconds."""
    total = int(time.process_time() + seconds) + 1
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CPU, (total, total + 5))
