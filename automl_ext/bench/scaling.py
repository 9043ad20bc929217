"""Scaling of our ops: two threads against one, and the time per element of float64 and bfloat16 against float32."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from automl_ext.bench.cases.case import FORWARD, Case, as_list, plain
from automl_ext.bench.contenders import timed
from automl_ext.bench.measure import copy_call, moved_bytes
from automl_ext.bench.timing import Call, Times, elapsed, interleaved, summary

LARGE = 1_000_000  # elements of the inputs
BLOCKS = 3
SETTLE = 0.05
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def scaling(
    build: Callable[[Sequence[torch.dtype]], list[Case]], seconds: float, cores: int
) -> Iterator[dict[str, Any]]:
    """Yield the rows of every large case on the CPU. ``build(dtypes)`` returns the cases.

    ``two_threads`` is the speedup over one thread. ``memory_allows`` is the speedup if two threads took as long for our
    op as for a copy of the bytes that it must move.
    """
    groups: dict[tuple[str, tuple[int, ...]], dict[torch.dtype, Case]] = {}
    for case in build(DTYPES):
        if not case.prepares and sum(x.numel() for x in case.make()) >= LARGE:
            groups.setdefault((case.op, case.shape), {})[case.dtype] = case
    for (op, shape), by_dtype in groups.items():
        for pass_ in by_dtype[torch.float32].passes:
            calls: dict[str, Call] = {}
            moved = {}
            for dtype, case in by_dtype.items():
                name = str(dtype).removeprefix("torch.")
                calls[name], moved[name] = call(case, pass_)
            times = interleaved(torch.device("cpu"), calls, seconds)
            times |= by_threads(calls["float32"], seconds, [1, 2] if cores >= 2 else [1])
            two_threads = memory_allows = None
            if cores >= 2:
                copy = by_threads(copy_call(moved["float32"], torch.device("cpu")), seconds / 2, [2])
                two_threads = speedup(times, "1 thread", "2 threads")
                memory_allows = times["1 thread"]["median"] / copy["2 threads"]["median"]
            yield {
                "op": op,
                "shape": list(shape),
                "pass": pass_,
                "seconds": times,
                "two_threads": two_threads,
                "memory_allows": memory_allows,
                "float64": speedup(times, "float64", "float32"),
                "bfloat16": speedup(times, "bfloat16", "float32"),
            }


def speedup(times: dict[str, Times], slow: str, fast: str) -> float:
    return times[slow]["median"] / times[fast]["median"]


def call(case: Case, pass_: str) -> tuple[Callable[[], object], int]:
    """Return a call of our op, and the number of bytes that it must move."""
    torch.manual_seed(0)
    tensors = case.make()
    outputs = as_list(case.ours(*tensors))
    grads = None if pass_ == FORWARD else [torch.randn_like(outputs[0])]
    size = case.moved or moved_bytes(case, pass_, tensors, outputs)
    return timed(plain(case.ours), [tensors], case.trained, grads), size


def by_threads(run: Call, seconds: float, counts: Sequence[int]) -> dict[str, Times]:
    """Return the times of a call by the number of threads: the best of BLOCKS alternating blocks per number.

    The number of threads changes only between blocks, and each block starts with SETTLE untimed seconds, because a
    thread that has just woken runs slowly at first. The best block counts, because other programs can take cores away
    for a while.
    """
    before, device = torch.get_num_threads(), torch.device("cpu")
    blocks: dict[str, list[Times]] = {threads_in_words(n): [] for n in counts}
    try:
        for _ in range(BLOCKS):
            for count in counts:
                torch.set_num_threads(count)
                spend(SETTLE, run)
                turns = spend(seconds / BLOCKS / len(counts), partial(elapsed, device, run))
                blocks[threads_in_words(count)].append(summary(turns))
    finally:
        torch.set_num_threads(before)
    return {count: min(times, key=lambda one: one["median"]) for count, times in blocks.items()}


def threads_in_words(count: int) -> str:
    return f"{count} thread" + "s" * (count > 1)


def spend(seconds: float, run: Callable[[], Any]) -> list[Any]:
    """Call ``run`` for ``seconds``, at least three times. Return the results."""
    results: list[Any] = []
    end = time.perf_counter() + seconds
    while len(results) < 3 or time.perf_counter() < end:
        results.append(run())
    return results
