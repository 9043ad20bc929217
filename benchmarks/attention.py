"""Measure entmax15_attention beside PyTorch's fused softmax attention.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/attention.py --json benchmarks/results/attention_amx.json
    taskset -c 0,1 python benchmarks/attention.py --threads 2 --only "4, 8, 1024, 64"
    python benchmarks/attention.py --memory

Inputs are normal random numbers; q and k are multiplied by a factor where one is given: a small factor gives long
supports. The implementations take turns, and the medians of the turns are compared. Both keep freed memory. With
``--cpu-time``, the clock is that of the thread, for a machine on which other programs run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from automl_ext import __version__, build_info, entmax15, entmax15_attention, keep_freed_memory
from automl_ext.training.machine.environment import cpu_name

Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Row:
    """A problem: batch × heads × queries × width, and what differs from plain attention."""

    shape: Shape
    keys: int = 0  # 0: as many as queries
    key_heads: int = 0  # 0: as many as heads
    factor: float = 1.0
    is_causal: bool = False
    mask: str = ""
    views: bool = False
    dtype: torch.dtype = torch.float32
    passes: tuple[str, ...] = ("forward", "with gradient")
    composition: bool = False

    def __str__(self) -> str:
        batch, heads, queries, width = self.shape
        length = f"{queries} × {self.keys}" if self.keys else str(queries)
        parts = [f"({batch}, {heads}, {length}, {width})"]
        parts += ["causal"] * self.is_causal + [self.mask] * bool(self.mask) + ["[B, L, H, d] views"] * self.views
        parts += [f"{self.key_heads} key heads"] * bool(self.key_heads)
        parts += [f"q, k × {self.factor:g}"] * (self.factor != 1)
        parts += [str(self.dtype).removeprefix("torch.")] * (self.dtype != torch.float32)
        return ", ".join(parts)

    def tensors(self) -> list[Tensor]:
        """Return query, key, value and the gradient of the result."""
        torch.manual_seed(0)
        batch, heads, queries, width = self.shape
        keys = self.keys or queries

        def made(heads: int, length: int, factor: float = 1.0) -> Tensor:
            if self.views:
                return (factor * torch.randn(batch, length, heads, width)).transpose(1, 2).to(self.dtype)
            return (factor * torch.randn(batch, heads, length, width)).to(self.dtype)

        of_keys = self.key_heads or heads
        return [
            made(heads, queries, self.factor),
            made(of_keys, keys, self.factor),
            made(of_keys, keys),
            made(heads, queries),
        ]

    def options(self) -> dict[str, Any]:
        batch, _, queries, _ = self.shape
        keys = self.keys or queries
        options: dict[str, Any] = {"is_causal": self.is_causal, "enable_gqa": bool(self.key_heads)}
        if self.mask == "padding":
            options["attn_mask"] = (torch.arange(keys) < keys // 2).expand(batch, 1, 1, keys)
        if self.mask == "bool mask":
            options["attn_mask"] = torch.rand(queries, keys) < 0.5
        if self.mask == "added mask":
            options["attn_mask"] = torch.randn(queries, keys)
        return options


MIDDLE: Shape = (4, 8, 1024, 64)
FORWARD = ("forward",)
ROWS = [
    Row((8, 8, 256, 32)),
    Row((8, 8, 256, 32), is_causal=True),
    Row(MIDDLE),
    Row(MIDDLE, is_causal=True),
    Row((1, 8, 4096, 64)),
    Row((1, 8, 4096, 64), is_causal=True),
    Row(MIDDLE, mask="padding"),
    Row(MIDDLE, mask="bool mask"),
    Row(MIDDLE, mask="added mask"),
    Row(MIDDLE, key_heads=2),
    Row(MIDDLE, views=True),
    Row((4, 8, 512, 16)),
    Row((4, 8, 512, 80)),
    Row((8, 8, 197, 64)),
    Row((32, 8, 64, 32), composition=True),
    *(Row(shape, factor=factor) for shape in ((8, 8, 256, 32), MIDDLE) for factor in (0.1, 0.3, 0.5)),
    Row(MIDDLE, dtype=torch.bfloat16),
    Row(MIDDLE, dtype=torch.float16),
    Row((1, 8, 1, 64), keys=4096, passes=FORWARD),
    Row((8, 32, 1, 128), keys=4096, passes=FORWARD),
    Row((1, 8, 1, 64), keys=32768, passes=FORWARD),
]


def composition(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """Return attention by entmax15 of all scores; without masks."""
    return entmax15(query @ key.mT / query.shape[-1] ** 0.5) @ value


def call(function: Callable[..., Tensor], row: Row, trained: bool) -> Callable[[], object]:
    q, k, v, grad = row.tensors()
    leaves = [x.requires_grad_(trained) for x in (q, k, v)]
    options = row.options()
    if trained:
        return lambda: torch.autograd.grad(function(*leaves, **options), leaves, grad)
    return lambda: function(*leaves, **options)


def measured(row: Row, pass_: str, turns: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Return the median seconds of each implementation, and the medians of the ratios to fused softmax attention."""
    functions: dict[str, Callable[..., Tensor]] = {
        "softmax": F.scaled_dot_product_attention,
        "ours": entmax15_attention,
    }
    if row.composition:
        functions["composition"] = composition
    calls = {name: call(function, row, pass_ != "forward") for name, function in functions.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    repeats = 0
    for turn in range(turns + 1):
        for name, run in calls.items():
            run()  # untimed, for the cache
            begin = clock()
            for _ in range(max(repeats, 1)):
                run()
            seconds = (clock() - begin) / max(repeats, 1)
            if turn:
                times[name].append(seconds)
        if not turn:
            repeats = max(1, int(0.01 / max(seconds, 1e-6)))
    return {
        "row": str(row),
        "pass": pass_,
        "seconds": {name: statistics.median(all_) for name, all_ in times.items()},
        "of_softmax": {
            name: statistics.median(x / y for x, y in zip(all_, times["softmax"], strict=True))
            for name, all_ in times.items()
            if name != "softmax"
        },
    }


def peak_megabytes(length: int) -> float:
    """Return the growth of this process's memory in a training step, above inputs, result and gradients."""
    shape = (1, 1, length, 64)
    row = Row(shape)
    call(entmax15_attention, Row((1, 1, 64, 64)), True)()  # loads everything
    q, k, v, grad = row.tensors()
    leaves = [x.requires_grad_() for x in (q, k, v)]
    held = [torch.ones(shape) for _ in range(4)]  # the result and three gradients
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del held
    torch.autograd.grad(entmax15_attention(*leaves), leaves, grad)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def results(only: str, turns: int, clock: Callable[[], float]) -> Iterator[dict[str, Any]]:
    for row in ROWS:
        for pass_ in row.passes if only in str(row) else ():
            result = measured(row, pass_, turns, clock)
            times = "  ".join(
                f"{name} {1e3 * seconds:.2f} ms"
                + (f" ({result['of_softmax'][name]:.2f})" if name in result["of_softmax"] else "")
                for name, seconds in result["seconds"].items()
            )
            print(f"{result['row']}, {pass_}: {times}", flush=True)
            yield result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--only", default="", help="measure the rows whose name contains this text")
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="measure the thread's time; for one thread")
    parser.add_argument("--memory", action="store_true", help="only the peak memory of a training step")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory:
        print(f"(1, 1, 32768, 64), with gradient: {peak_megabytes(32768):.0f} MB above inputs and results")
        return
    keep_freed_memory()
    clock = time.thread_time if args.cpu_time else time.perf_counter
    rows = list(results(args.only, args.turns, clock))
    if args.json:
        facts = {
            "date": datetime.date.today().isoformat(),
            "cpu": cpu_name(),
            "instruction_set": build_info().get("instruction_set"),
            "threads": args.threads,
            "clock": "thread" if args.cpu_time else "wall",
            "load": os.getloadavg()[0],
            "versions": {"automl_ext": __version__, "torch": torch.__version__},
            "rows": rows,
        }
        args.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
