"""How long a call takes: contenders take turns, and the median and quartiles of their turns count."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from automl_ext.training.memory import keep_freed_memory

TURN = 2e-3  # seconds of calls between two readings of the clock, which is then exact to a thousandth
FEWEST_TURNS = 5
LONG = 2.0  # a call of so many seconds has had its turn
WARM_UP_ELEMENTS = 7_500_000
Run = Callable[[], object]
Times = dict[str, float]  # median, low and high quartile, in seconds; turns


def warm_allocator() -> None:
    """Have what is freed kept: else large results fault in again, page by page, at every call, and more for whoever has
    more neighbours in the run. Where the C library cannot be told so, one large block, allocated and freed, has to do.
    """
    keep_freed_memory()
    torch.empty(WARM_UP_ELEMENTS)


def elapsed(device: torch.device, run: Run, calls: int = 1) -> float:
    """Seconds per call that the device spends on run; on a GPU without the host's waiting, by events."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / calls
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - begin) / calls


def summary(times: list[float]) -> Times:
    quartiles = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    low, median, high = (float(f"{t:.4g}") for t in quartiles)
    return {"median": median, "low": low, "high": high, "turns": len(times)}


def interleaved(device: torch.device, runs: dict[str, Run], seconds: float) -> dict[str, Times]:
    """Seconds per call of each: five turns or more, as many as fit into `seconds`.

    Before its turn a contender makes a call that does not count, so that it does not pay for the last one's traces in
    the cache. What takes longer than LONG for one call gets a single turn.
    """
    times: dict[str, list[float]] = {}
    calls: dict[str, int] = {}
    for name, run in runs.items():
        run()
        once = elapsed(device, run)
        times[name] = [once] if once > LONG else []
        if once <= LONG:
            calls[name] = max(1, min(1000, int(TURN / max(once, 1e-6))))
    end = time.perf_counter() + seconds
    taken = 0
    while calls and (taken < FEWEST_TURNS or time.perf_counter() < end):
        taken += 1
        for name, count in calls.items():
            runs[name]()
            times[name].append(elapsed(device, runs[name], count))
    return {name: summary(values) for name, values in times.items()}


def cache_bytes(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else 0
