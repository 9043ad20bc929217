"""Checks of results: a sample of rows is compared with the reference in float64 on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from automl_ext.bench.cases.case import Case, as_list, by_reference

SAMPLED_ELEMENTS = 100_000


class Exact(NamedTuple):
    """Expected values of the sampled rows ``at``: outputs, then the gradients that depend on these rows only."""

    at: Tensor
    results: list[Tensor]


def as_leaves(tensors: Sequence[Tensor], trained: int) -> list[Tensor]:
    return [x.detach().requires_grad_(i < trained) for i, x in enumerate(tensors)]


def with_gradients(outputs: list[Tensor], leaves: Sequence[Tensor], trained: int, grad: Tensor) -> list[Tensor]:
    """Return the outputs, then the gradients of the first ``trained`` leaves. ``grad``: gradient of every output."""
    on = [y for y in outputs if y.requires_grad]
    return [*outputs, *torch.autograd.grad(on, leaves[:trained], [grad] * len(on))]


def sampled_rows(case: Case, tensors: Sequence[Tensor]) -> Tensor:
    size = max(1, tensors[0].numel() // case.count)
    rows = min(case.count, max(4, min(64, SAMPLED_ELEMENTS // size)))
    if case.from_the_front:
        return torch.arange(rows)
    return torch.linspace(0, case.count - 1, rows, dtype=torch.float64).long()


def exact_sample(case: Case, tensors: Sequence[Tensor], grad: Tensor | None) -> Exact:
    at = sampled_rows(case, tensors)
    there = at.to(tensors[0].device)
    inputs = [x.detach().cpu() for x in case.sample(tensors, there)]
    inputs = [x.double() if x.is_floating_point() else x for x in inputs]
    reference = by_reference(case.seeded or case.ours)
    if grad is None:
        return Exact(at, [y.detach() for y in as_list(reference(*inputs))])
    leaves = as_leaves(inputs, case.trained)
    outputs = as_list(reference(*leaves))
    results = with_gradients(outputs, leaves, case.trained, case.pick(grad, there).cpu().double())
    compared = case.trained if case.compared is None else case.compared
    return Exact(at, [y.detach() for y in results[: len(outputs) + compared]])


def error_of(case: Case, exact: Exact, results: Sequence[Tensor]) -> float:
    """Return the largest error of the sampled rows, relative to the largest value of each result in the sample.

    Infinite if an integer is wrong or an output is missing; NaN if a result is NaN.
    """
    if len(results) < len(exact.results):
        return float("inf")
    errors = []
    for y, expected in zip(results, exact.results, strict=False):  # gradients that are not compared come last
        got = case.pick(y.detach(), exact.at.to(y.device)).cpu()
        if got.shape != expected.shape:
            return float("inf")
        if not got.is_floating_point():
            errors.append(0.0 if torch.equal(got, expected) else float("inf"))
            continue
        scale = expected.abs().max().clamp(min=1e-30)
        errors.append(float((got.double() - expected).abs().max() / scale))
    return float(torch.tensor(errors).max())  # unlike Python's max, it keeps a NaN


def allowed_error(dtype: torch.dtype, ours: bool) -> float:
    """Return the error allowed for rounding in the output's dtype and in float32 sums.

    Errors of wrong results are far larger. For other packages the limit is eight times as large, because they may sum
    in the inputs' dtype.
    """
    return (1 if ours else 8) * (4 * torch.finfo(dtype).eps + 64 * torch.finfo(torch.float32).eps)
