"""The measurement of a case: one row of the result per pass, with times, errors and ratios."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from automl_ext.bench.cases.case import FORWARD, Case, nbytes, plain
from automl_ext.bench.checking import allowed_error, error_of, exact_sample
from automl_ext.bench.contenders import calls_on, contenders, first_results, results_of, timed
from automl_ext.bench.reports.cells import YARDSTICKS
from automl_ext.bench.timing import Clock, cache_bytes, interleaved, on_device

Row = dict[str, Any]
MOST_SETS = 64
CUDA_COPY_BYTES = 2**29  # bytes read and written


def measure(
    case: Case, device: torch.device, seconds: float, compiled: bool, clock: Clock = time.perf_counter
) -> Iterator[Row]:
    """Yield a row for each pass."""
    for pass_ in case.passes:
        torch.manual_seed(0)
        yield measure_pass(case, pass_, device, seconds, compiled, clock)


def measure_pass(
    case: Case,
    pass_: str,
    device: torch.device,
    seconds: float,
    compiled: bool,
    clock: Clock = time.perf_counter,
) -> Row:
    sets = rotation(case, device)
    outputs = results_of(case.bound(case.ours), sets[0], 0, None)
    grads = None if pass_ == FORWARD else [torch.randn_like(outputs[0]) for _ in sets]
    bound, skipped = contenders(case, pass_, compiled)
    results, failed = first_results(bound, sets[0], case.trained, grads[0] if grads else None)
    errors = contender_errors(case, sets[0], results, grads[0] if grads else None)
    size = case.moved or moved_bytes(case, pass_, sets[0], outputs)
    del results, outputs
    calls = {name: timed(bound[name], sets, case.trained, grads) for name in errors}
    if case.softmax:
        calls["softmax"] = timed(plain(case.softmax), sets, case.trained or 1, grads if case.trained else None)
    copied = CUDA_COPY_BYTES if device.type == "cuda" else size
    calls["copy"] = copy_call(copied, device)
    times = interleaved(device, calls, seconds, clock)
    del calls
    of_graph = graph_seconds(case, device, sets, grads, failed) if device.type == "cuda" else {}
    row = {
        "op": case.op,
        "shape": list(case.shape),
        "dtype": str(case.dtype).removeprefix("torch."),
        "pass": pass_,
        "bytes": size,
        "copied_bytes": copied,
        "beyond_cache": sum(nbytes(tensors) for tensors in sets) > cache_bytes(device),
        "seconds": times,
        "graph_seconds": of_graph,
        "errors": errors,
        "wrong": [name for name, error in errors.items() if not error <= allowed_error(case.dtype, name == "ours")],
        "skipped": skipped,
        "failed": failed,
    }
    return row | compared(row)


def graph_seconds(
    case: Case, device: torch.device, sets: list[list[Tensor]], grads: list[Tensor] | None, failed: dict[str, str]
) -> dict[str, float]:
    """Return the seconds per call in a CUDA graph, of our op and of softmax; ``failed`` gets errors.

    The seed of a sampler is fixed: drawing one is another launch.
    """
    functions = {"ours": case.bound(case.seeded or case.ours)}
    if case.softmax:
        functions["softmax"] = plain(case.softmax)
    times = {}
    for name, bind in functions.items():
        trained = case.trained if name == "ours" else case.trained or 1
        try:
            times[name] = on_device(device, calls_on(bind, sets, trained, grads))
        except RuntimeError as error:  # it cannot be captured, or the memory does not suffice for all results
            failed[f"{name} in a CUDA graph"] = f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
    return times


def rotation(case: Case, device: torch.device) -> list[list[Tensor]]:
    """Return sets of inputs that together exceed a GPU's cache (at most MOST_SETS); one set on a CPU."""
    first = case.make()
    if device.type != "cuda":
        return [first]
    count = min(MOST_SETS, max(2, 1 + 2 * cache_bytes(device) // max(1, nbytes(first))))
    return [first, *(case.make() for _ in range(count - 1))]


def copy_call(size: int, device: torch.device) -> Any:
    """Return a function that makes a copy, which reads and writes ``size`` bytes in total."""
    source = torch.ones(max(1, size // 2), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def contender_errors(
    case: Case, tensors: Sequence[Tensor], results: dict[str, list[Tensor]], grad: Tensor | None
) -> dict[str, float]:
    """Return the error of every contender: against the reference or, if it draws its own noise, by ``case.law``."""
    exact = None if case.prepares else exact_sample(case, tensors, grad)
    errors = {}
    for name, result in results.items():
        if case.law is not None:
            errors[name] = case.law(tensors[0], result, grad)
        elif exact is not None:
            errors[name] = error_of(case, exact, result)
        if name == "ours" and case.seeded is not None and exact is not None:
            fixed = results_of(plain(case.seeded), tensors, case.trained, grad)
            both = [errors[name], error_of(case, exact, fixed)]
            errors[name] = math.nan if any(map(math.isnan, both)) else max(both)
    return errors


def moved_bytes(case: Case, pass_: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
    """Return the number of bytes that must move.

    The forward pass reads the inputs and writes the outputs. The backward pass reads the gradients of the outputs and
    the saved tensors, and writes the gradients of the inputs.
    """
    forward_bytes = nbytes(inputs) + nbytes(outputs)
    if pass_ == FORWARD:
        return forward_bytes
    grads = [y for y in outputs if y.is_floating_point()]
    if case.op == "n_step_returns":
        grads = grads[:1]  # the discounts have no gradient
    return forward_bytes + nbytes(grads) + nbytes(case.saved(inputs, outputs)) + nbytes(inputs[: case.trained])


def compared(row: Row) -> Row:
    """Return the fastest correct contender, its time over ours, and the ratios to a copy and to softmax."""
    medians = {name: times["median"] for name, times in row["seconds"].items()}
    ours = medians["ours"]
    others = {n: t for n, t in medians.items() if n != "ours" and n not in YARDSTICKS and n not in row["wrong"]}
    best = min(others, key=others.__getitem__, default=None)
    limit = medians["copy"] * row["bytes"] / row["copied_bytes"]
    return {
        "best": best,
        "ratio": others[best] / ours if best else None,
        "of_copy": limit / ours,
        "of_softmax": ours / medians["softmax"] if "softmax" in medians else None,
        "copy_gb_per_s": row["copied_bytes"] / medians["copy"] / 1e9,
    }
