"""Every op on a GPU against a plain copy and against eager PyTorch: ``python benchmarks/ops_cuda.py [--json FILE]``.

Times are of calls that follow each other on one stream, medians of turns that ours, eager PyTorch and a device copy
take one after the other. Inputs rotate through more memory than the L2 cache holds, as far as MOST_SETS of them do.
GB/s counts the bytes that must move: inputs read once, outputs written once (backward: the gradients and what was
saved read, gradients written). A sample of rows is compared with the reference in float64 on the CPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from eager import by_reference
from ops_cuda_cases import SHAPES, Case, cases
from torch import Tensor

import automl_ext

COPY_BYTES = 2**28
MOST_SETS = 64
SAMPLED_ELEMENTS = 100_000
TURN = 1e-3  # seconds of calls between two readings of the clock, which is then exact to a thousandth
Run = Callable[[], list[Tensor]]


def elapsed(device: torch.device, run: Callable[[], object]) -> float:
    """Seconds that the device spends on run; on a GPU without the host's waiting, by events."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def cache_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    return 2**25


def nbytes(tensors: Sequence[Tensor]) -> int:
    return sum(x.nbytes for x in tensors)


# ---- one call


def as_list(outputs: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def passes(case: Case) -> list[str]:
    return ["forward", "forward + backward"] if case.trained else ["forward"]


def forward(function: Callable, tensors: Sequence[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return as_list(function(*tensors))


def with_backward(function: Callable, leaves: Sequence[Tensor], trained: int, grad: Tensor) -> list[Tensor]:
    """Outputs, then the gradients to the first `trained` leaves. Every output gets the same gradient."""
    outputs = as_list(function(*leaves))
    on = [y for y in outputs if y.requires_grad]
    return [*outputs, *torch.autograd.grad(on, leaves[:trained], [grad] * len(on))]


def as_leaves(tensors: Sequence[Tensor], trained: int) -> list[Tensor]:
    return [x.detach().requires_grad_(i < trained) for i, x in enumerate(tensors)]


# ---- bytes, and the sample of rows that is checked


def moved_bytes(case: Case, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
    forward_bytes = nbytes(inputs) + nbytes(outputs)
    if name == "forward":
        return forward_bytes
    grads = [y for y in outputs if y.is_floating_point()]
    if case.op == "n_step_returns":
        grads = grads[:1]  # the discounts have no gradient
    return forward_bytes + nbytes(grads) + nbytes(case.saved(inputs, outputs)) + nbytes(inputs[: case.trained])


def sampled_rows(case: Case, tensors: Sequence[Tensor]) -> Tensor:
    size = max(1, tensors[0].numel() // case.count)
    rows = min(case.count, max(4, min(64, SAMPLED_ELEMENTS // size)))
    if case.from_the_front:
        return torch.arange(rows)
    return torch.linspace(0, case.count - 1, rows, dtype=torch.float64).long()


def error_of_sample(case: Case, tensors: Sequence[Tensor], results: Sequence[Tensor], grad: Tensor | None) -> float:
    """The largest error of the sampled rows of the results, relative to each one's largest value in the sample.

    With `grad` gradients follow the outputs. Infinite where an integer is wrong; NaN where a result is NaN.
    """
    at = sampled_rows(case, tensors)
    there = at.to(tensors[0].device)
    inputs = [x.detach().cpu() for x in case.sample(tensors, there)]
    exact_inputs = [x.double() if x.is_floating_point() else x for x in inputs]
    reference = by_reference(case.ours)
    count = len(forward(reference, exact_inputs))
    if grad is None:
        exact = forward(reference, exact_inputs)
    else:
        exact_grad = case.pick(grad, there).cpu().double()
        exact = with_backward(reference, as_leaves(exact_inputs, case.trained), case.trained, exact_grad)
        compared = case.trained if case.compared is None else case.compared
        exact, results = exact[: count + compared], results[: count + compared]
    errors = []
    for y, expected in zip(results, exact, strict=True):
        got = case.pick(y.detach(), there).cpu()
        if not got.is_floating_point():
            errors.append(0.0 if torch.equal(got, expected) else float("inf"))
            continue
        expected = expected.detach()
        scale = expected.abs().max().clamp(min=1e-30)
        errors.append(float((got.double() - expected).abs().max() / scale))
    return float(torch.tensor(errors).max())  # unlike Python's max, it keeps a NaN


def allowed_error(dtype: torch.dtype) -> float:
    """Rounding in the output's dtype, and of the sums in float32; a wrong result is off by far more."""
    return 4 * torch.finfo(dtype).eps + 64 * torch.finfo(torch.float32).eps


# ---- time


def calls_in_turn(device: torch.device, run: Run) -> tuple[int, float]:
    """How many calls take about TURN, and how long one takes, after warming up."""
    run()
    once = elapsed(device, run)
    return max(1, min(1000, int(TURN / max(once, 1e-6)))), once


def interleaved(device: torch.device, runs: dict[str, Run], seconds: float) -> dict[str, float]:
    """Median seconds of a call of each, of three turns or more; what takes `seconds` for one call has had its turn."""
    times: dict[str, list[float]] = {}
    turns: dict[str, tuple[Run, int]] = {}
    for name, run in runs.items():
        calls, once = calls_in_turn(device, run)
        times[name] = [once] if once > seconds else []
        if once <= seconds:
            turns[name] = (run, calls)
    end = time.perf_counter() + seconds
    taken = 0
    while turns and (taken < 3 or time.perf_counter() < end):
        taken += 1
        for name, (run, calls) in turns.items():
            times[name].append(elapsed(device, lambda run=run, calls=calls: [run() for _ in range(calls)]) / calls)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(case: Case, device: torch.device, seconds: float, copy: Run, copy_bytes: int) -> Iterator[dict[str, Any]]:
    """A row for each pass of the case."""
    torch.manual_seed(0)
    first = case.make()
    sets = min(MOST_SETS, max(2, 1 + 2 * cache_bytes(device) // max(1, nbytes(first))))
    rotation = [first, *(case.make() for _ in range(sets - 1))]
    outputs = forward(case.ours, first)
    for name in passes(case):
        if name == "forward":
            problems = itertools.cycle(rotation)
            runs = {
                "ours": lambda problems=problems: forward(case.ours, next(problems)),
                "eager": lambda problems=problems: forward(case.eager, next(problems)),
            }
            results, grad = outputs, None
        else:
            grads = [torch.randn_like(outputs[0]) for _ in rotation]
            leaves = [as_leaves(tensors, case.trained) for tensors in rotation]
            pairs = itertools.cycle(zip(leaves, grads, strict=True))

            def backward(function: Callable, pairs: Iterator = pairs) -> list[Tensor]:
                tensors, grad = next(pairs)
                return with_backward(function, tensors, case.trained, grad)

            runs = {"ours": lambda: backward(case.ours), "eager": lambda: backward(case.eager)}
            grad = grads[0]
            results = with_backward(case.ours, leaves[0], case.trained, grad)
        error = error_of_sample(case, first, results, grad)
        size = moved_bytes(case, name, first, outputs)
        del results
        times = interleaved(device, {**runs, "copy": copy}, seconds)
        bandwidth, copied = size / times["ours"], 2 * copy_bytes / times["copy"]
        yield {
            "op": case.op,
            "pass": name,
            "shape": list(case.shape),
            "dtype": str(case.dtype).removeprefix("torch."),
            "ours_us": 1e6 * times["ours"],
            "eager_us": 1e6 * times["eager"],
            "ratio": times["eager"] / times["ours"],
            "bytes": size,
            "gb_per_s": bandwidth / 1e9,
            "copy_gb_per_s": copied / 1e9,
            "percent_of_copy": 100 * bandwidth / copied,
            "rotated_bytes": sets * nbytes(first),
            "beyond_cache": sets * nbytes(first) > cache_bytes(device),
            "error": error,
            "correct": error <= allowed_error(case.dtype),
        }


def benchmark(todo: Sequence[Case], device: torch.device, seconds: float, copy_bytes: int) -> Iterator[dict[str, Any]]:
    source = torch.ones(copy_bytes // 4, device=device)
    target = torch.empty_like(source)
    for case in todo:
        yield from measure(case, device, seconds, lambda: [target.copy_(source)], copy_bytes)


# ---- what is printed

HEADER = (
    f"{'op':<23}{'pass':<19}{'shape':<22}{'dtype':<10}{'µs':>10}{'GB/s':>8}{'% copy':>8}{'eager µs':>12}{'ratio':>8}"
)


def line(row: dict[str, Any]) -> str:
    shape = "x".join(map(str, row["shape"]))
    small = "" if row["beyond_cache"] else "  in cache"
    wrong = "" if row["correct"] else f"  WRONG: error {row['error']:.1e}"
    return (
        f"{row['op']:<23}{row['pass']:<19}{shape:<22}{row['dtype']:<10}{row['ours_us']:>10.1f}{row['gb_per_s']:>8.0f}"
        f"{row['percent_of_copy']:>7.0f}%{row['eager_us']:>12.1f}{row['ratio']:>8.1f}{small}{wrong}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--seconds", type=float, default=0.3, help="per row")
    args = parser.parse_args(arguments)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("error: no GPU is found; --device cpu measures the CPU", file=sys.stderr)
        return 2
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}; torch {torch.__version__}; {automl_ext.build_info()}\n{HEADER}", flush=True)
    rows = []
    for row in benchmark(cases(args.device, SHAPES), device, args.seconds, COPY_BYTES):
        rows.append(row)
        print(line(row), flush=True)
    if rows:
        print(f"device copy: {statistics.median(row['copy_gb_per_s'] for row in rows):.0f} GB/s (read and written)")
    if args.json:
        args.json.write_text(json.dumps({"device": name, "torch": torch.__version__, "rows": rows}, indent=2) + "\n")
    return 0 if all(row["correct"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
