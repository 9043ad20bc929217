"""Timing: contenders take turns; the result is the median and the quartiles of their turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from automl_ext.training.machine.memory import keep_freed_memory

TURN = 2e-3  # seconds of calls between two clock readings, so that the clock's error is below 0.1 %
FEWEST_TURNS = 5
LONG = 2.0  # seconds; a longer call gets a single turn
WARM_UP_ELEMENTS = 7_500_000
REPLAYS = 7  # of a CUDA graph
Call = Callable[[], object]
Clock = Callable[[], float]
Times = dict[str, float]  # median, low and high quartile, in seconds; turns


def warm_allocator() -> None:
    """Make the C library keep freed memory. Otherwise large results cause page faults at every call.

    One large block is also allocated and freed. That has a similar effect where the C library lacks the setting.
    """
    keep_freed_memory()
    torch.empty(WARM_UP_ELEMENTS)


def elapsed(device: torch.device, run: Call, calls: int = 1, clock: Clock = time.perf_counter) -> float:
    """Return the seconds per call that the device spends on ``run``, measured by events on a GPU."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / calls
    begin = clock()
    for _ in range(calls):
        run()
    return (clock() - begin) / calls


def on_device(device: torch.device, calls: Sequence[Call]) -> float:
    """Return the median seconds per call on the GPU, of all calls in one CUDA graph: Python's dispatch does not count.

    The results of all calls are kept, so that each call writes to memory of its own. On a CPU, which rehearses this,
    the calls run one after another.
    """
    if device.type != "cuda":
        return statistics.median(elapsed(device, lambda: [call() for call in calls]) for _ in range(3)) / len(calls)
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # loading and allocation at first use must not be captured
            for call in calls[:3]:
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph, results = torch.cuda.CUDAGraph(), []
        with torch.cuda.graph(graph):
            for call in calls:
                results.append(call())
        graph.replay()
        return statistics.median(elapsed(device, graph.replay) for _ in range(REPLAYS)) / len(calls)


def summary(times: list[float]) -> Times:
    quartiles = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    low, median, high = (float(f"{t:.4g}") for t in quartiles)
    return {"median": median, "low": low, "high": high, "turns": len(times)}


def interleaved(
    device: torch.device, runs: dict[str, Call], seconds: float, clock: Clock = time.perf_counter
) -> dict[str, Times]:
    """Return the seconds per call of each contender, from at least five turns and as many as fit into ``seconds``.

    Each turn starts with an untimed call, so that the cache contents left by the previous contender do not count.
    A call longer than LONG gets a single turn.
    """
    times: dict[str, list[float]] = {}
    calls: dict[str, int] = {}
    for name, run in runs.items():
        run()
        once = elapsed(device, run, clock=clock)
        times[name] = [once] if once > LONG else []
        if once <= LONG:
            calls[name] = max(1, min(1000, int(TURN / max(once, 1e-6))))
    end = time.perf_counter() + seconds
    taken = 0
    while calls and (taken < FEWEST_TURNS or time.perf_counter() < end):
        taken += 1
        for name, count in calls.items():
            runs[name]()
            times[name].append(elapsed(device, runs[name], count, clock))
    return {name: summary(values) for name, values in times.items()}


def cache_bytes(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else 0
