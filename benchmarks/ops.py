"""Every op against plain PyTorch, side by side: ``python benchmarks/ops.py [--json FILE]``.

Contenders take turns, the median counts, and a ratio above 1 means that ours is faster. For steady numbers pin the
process: ``OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/ops.py``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from eager import by_reference
from eager import mixed_op as eager_mixed_op
from rich.console import Console
from rich.table import Table
from torch import Tensor

import automl_ext
from automl_ext.ops._entmax_reference import _entmax15_reference, _sparsemax_reference

Contenders = tuple[Callable[[], object], Callable[[], object]]  # ours, eager PyTorch


def with_backward(forward: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    x = x.clone().requires_grad_()
    grad = torch.randn_like(x)
    return lambda: torch.autograd.grad(forward(x), x, grad)


def rowwise(ours: Callable[[Tensor], Tensor], eager: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> dict:
    x = torch.randn(shape)
    return {
        "forward": (lambda: ours(x), lambda: eager(x)),
        "forward + backward": (with_backward(ours, x), with_backward(eager, x)),
    }


def mixed(count: int, shape: tuple[int, ...]) -> dict:
    xs, w = [torch.randn(shape) for _ in range(count)], torch.randn(count)

    leaves, leaf_w, grad = [x.clone().requires_grad_() for x in xs], w.clone().requires_grad_(), torch.randn(shape)
    return {
        "forward": (lambda: automl_ext.mixed_op(xs, w), lambda: eager_mixed_op(xs, w)),
        "forward + backward": (
            lambda: torch.autograd.grad(automl_ext.mixed_op(leaves, leaf_w), [*leaves, leaf_w], grad),
            lambda: torch.autograd.grad(eager_mixed_op(leaves, leaf_w), [*leaves, leaf_w], grad),
        ),
    }


def returns(shape: tuple[int, int]) -> dict[str, dict[str, Contenders]]:
    r, v, nv, rho = (torch.randn(shape) for _ in range(4))
    ends = (torch.rand(shape) < 0.01, torch.rand(shape) < 0.01)
    ops = {
        "gae": lambda: automl_ext.gae(r, v, nv, *ends, 0.99, 0.95),
        "lambda_returns": lambda: automl_ext.lambda_returns(r, nv, *ends, 0.99, 0.95),
        "discounted_returns": lambda: automl_ext.discounted_returns(r, nv, *ends, 0.99),
        "n_step_returns": lambda: automl_ext.n_step_returns(r, nv, *ends, 0.99, 3),
        "vtrace": lambda: automl_ext.vtrace(rho, r, v, nv, *ends, 0.99),
        "retrace": lambda: automl_ext.retrace(rho, v, r, nv, *ends, 0.99),
    }
    return {name: {"forward": (op, by_reference(op))} for name, op in ops.items()}


def projection(n: int, atoms: int = 51) -> dict:
    p, r = torch.softmax(torch.randn(n, atoms), -1), torch.randn(n)

    def op() -> Tensor:
        return automl_ext.categorical_projection(p, r, r > 2, 0.99, -10.0, 10.0)

    return {"forward": (op, by_reference(op))}


def table() -> list[tuple[str, tuple[int, ...], str, Contenders]]:
    groups: list[tuple[str, tuple[int, ...], dict]] = []
    for shape in ((14, 8), (4096, 8), (1024, 1024)):
        groups += [
            ("gumbel_softmax", shape, rowwise(automl_ext.gumbel_softmax, F.gumbel_softmax, shape)),
            (
                "gumbel_softmax hard",
                shape,
                rowwise(
                    lambda x: automl_ext.gumbel_softmax(x, hard=True), lambda x: F.gumbel_softmax(x, hard=True), shape
                ),
            ),
        ]
    for shape in ((14, 8), (4096, 8), (4096, 32), (1024, 1024), (64, 32000)):
        groups += [
            ("entmax15", shape, rowwise(automl_ext.entmax15, lambda x: _entmax15_reference(x, 1), shape)),
            ("sparsemax", shape, rowwise(automl_ext.sparsemax, lambda x: _sparsemax_reference(x, 1), shape)),
        ]
    for count, shape in ((8, (16, 8, 8, 8)), (8, (64, 16, 32, 32))):
        groups.append((f"mixed_op K={count}", shape, mixed(count, shape)))
    for shape in ((128, 8), (128, 4096), (1024, 1024)):
        groups += [(name, shape, passes) for name, passes in returns(shape).items()]
    groups.append(("categorical_projection", (256, 51), projection(256)))
    return [(op, shape, name, pair) for op, shape, passes in groups for name, pair in passes.items()]


def interleaved_medians(contenders: Contenders, seconds: float) -> tuple[float, float]:
    """Median seconds per call of each; at least five turns, more while there is time."""
    for call in contenders:
        call()
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while len(times[0]) < 5 or time.perf_counter() < end:
        for call, results in zip(contenders, times, strict=True):
            start = time.perf_counter()
            call()
            results.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--seconds", type=float, default=0.3, help="per row")
    args = parser.parse_args()
    # The C library's first large blocks fault in page by page at every call; one that has been freed ends that.
    torch.empty(7_500_000)
    rows = []
    shown = Table("op", "shape", "pass", "ours", "eager", "eager / ours", title="microseconds, medians")
    for op, shape, name, contenders in table():
        ours, eager = interleaved_medians(contenders, args.seconds)
        rows.append({"op": op, "shape": shape, "pass": name, "ours_s": ours, "eager_s": eager, "ratio": eager / ours})
        shown.add_row(op, str(shape), name, f"{1e6 * ours:.1f}", f"{1e6 * eager:.1f}", f"{eager / ours:.2f}")
    Console(width=120).print(shown)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {automl_ext.build_info()}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
