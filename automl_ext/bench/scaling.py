"""How ours scales: two threads against one, and the time per element of float64 and bfloat16 against float32's.

Beside it how copies of as many bytes do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from automl_ext.bench.case import FORWARD, Case, plain
from automl_ext.bench.contenders import results_of, timed
from automl_ext.bench.measure import copy_call, moved_bytes
from automl_ext.bench.timing import Run, Times, elapsed, interleaved, summary

LARGE = 1_000_000  # elements
BLOCKS = 3
SETTLE = 0.05
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def scaling(
    build: Callable[[Sequence[torch.dtype]], list[Case]], seconds: float, cores: int
) -> Iterator[dict[str, Any]]:
    """Rows of every large case on the CPU. `build(dtypes)` gives the cases."""
    groups: dict[tuple[str, tuple[int, ...]], dict[torch.dtype, Case]] = {}
    for case in build(DTYPES):
        if math.prod(case.shape) >= LARGE and not case.prepares:
            groups.setdefault((case.op, case.shape), {})[case.dtype] = case
    for (op, shape), by_dtype in groups.items():
        for pass_ in by_dtype[torch.float32].passes:
            calls: dict[str, Run] = {
                str(dtype).removeprefix("torch."): call(case, pass_) for dtype, case in by_dtype.items()
            }
            copies = {name: copy_of(case, pass_) for name, case in zip(calls, by_dtype.values(), strict=True)}
            times, of_copies = (in_all_ways(runs, seconds, cores) for runs in (calls, copies))
            medians = {name: value["median"] for name, value in times.items()}
            yield {
                "op": op,
                "shape": list(shape),
                "pass": pass_,
                "seconds": times,
                "copies": of_copies,
                "two_threads": medians["1 thread"] / medians["2 threads"] if cores >= 2 else None,
                "float64": medians["float64"] / medians["float32"],
                "bfloat16": medians["bfloat16"] / medians["float32"],
            }


def in_all_ways(runs: dict[str, Run], seconds: float, cores: int) -> dict[str, Times]:
    """Times of the dtypes', and of float32's by threads."""
    times = interleaved(torch.device("cpu"), runs, seconds)
    return times | by_threads(runs["float32"], seconds, [1, 2] if cores >= 2 else [1])


def copy_of(case: Case, pass_: str) -> Run:
    """A copy of the bytes that a case's pass must move."""
    tensors = case.make()
    outputs = results_of(case.bound(case.ours), tensors, 0, None)
    return copy_call(case.moved or moved_bytes(case, pass_, tensors, outputs), torch.device("cpu"))


def call(case: Case, pass_: str) -> Callable[[], object]:
    torch.manual_seed(0)
    tensors = case.make()
    outputs = case.ours(*tensors)
    first = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
    return timed(plain(case.ours), [tensors], case.trained, None if pass_ == FORWARD else [torch.randn_like(first)])


def by_threads(run: Run, seconds: float, counts: Sequence[int]) -> dict[str, Times]:
    """Times of a call by the number of threads, in BLOCKS blocks of each that take turns.

    Unlike other contenders they cannot alternate at every turn: a thread that has just been woken shares a core for
    some scheduler ticks, and the one that waits for it spins. So a block begins with SETTLE seconds that do not count.
    """
    before, device = torch.get_num_threads(), torch.device("cpu")
    readings: dict[str, list[float]] = {threads_in_words(count): [] for count in counts}
    try:
        for _ in range(BLOCKS):
            for count in counts:
                torch.set_num_threads(count)
                spend(SETTLE, run)
                readings[threads_in_words(count)] += spend(seconds / BLOCKS / len(counts), lambda: elapsed(device, run))
    finally:
        torch.set_num_threads(before)
    return {name: summary(times) for name, times in readings.items()}


def threads_in_words(count: int) -> str:
    return f"{count} thread" + "s" * (count > 1)


def spend(seconds: float, run: Callable[[], Any]) -> list[Any]:
    """What calls of run return, three or more."""
    results: list[Any] = []
    end = time.perf_counter() + seconds
    while len(results) < 3 or time.perf_counter() < end:
        results.append(run())
    return results
