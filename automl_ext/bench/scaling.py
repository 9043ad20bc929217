"""How ours scales: two threads against one, and the time per element of float64 and bfloat16 against float32's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from automl_ext.bench.case import FORWARD, Case, plain
from automl_ext.bench.contenders import timed
from automl_ext.bench.timing import interleaved

LARGE = 1_000_000  # elements
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def scaling(
    build: Callable[[Sequence[torch.dtype]], list[Case]], seconds: float, threads: int, cores: int
) -> Iterator[dict[str, Any]]:
    """Rows of every large case on the CPU; the dtypes at `threads`. `build(dtypes)` gives the cases."""
    groups: dict[tuple[str, tuple[int, ...]], dict[torch.dtype, Case]] = {}
    for case in build(DTYPES):
        if math.prod(case.shape) >= LARGE:
            groups.setdefault((case.op, case.shape), {})[case.dtype] = case
    for (op, shape), by_dtype in groups.items():
        for pass_ in by_dtype[torch.float32].passes:
            calls = {str(d).removeprefix("torch."): with_threads(call(c, pass_), threads) for d, c in by_dtype.items()}
            float32 = call(by_dtype[torch.float32], pass_)
            calls["1 thread"] = with_threads(float32, 1)
            if cores >= 2:
                calls["2 threads"] = with_threads(float32, 2)
            times = interleaved(torch.device("cpu"), calls, seconds)
            torch.set_num_threads(threads)
            medians = {name: value["median"] for name, value in times.items()}
            yield {
                "op": op,
                "shape": list(shape),
                "pass": pass_,
                "seconds": times,
                "two_threads": medians["1 thread"] / medians["2 threads"] if cores >= 2 else None,
                "float64": medians["float64"] / medians["float32"],
                "bfloat16": medians["bfloat16"] / medians["float32"],
            }


def call(case: Case, pass_: str) -> Callable[[], object]:
    torch.manual_seed(0)
    tensors = case.make()
    outputs = case.ours(*tensors)
    first = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
    return timed(plain(case.ours), [tensors], case.trained, None if pass_ == FORWARD else [torch.randn_like(first)])


def with_threads(run: Callable[[], object], count: int) -> Callable[[], object]:
    def counted() -> object:
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)
        return run()

    return counted
