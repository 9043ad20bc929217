"""The implementations that a case compares (contenders): ours, eager and compiled PyTorch, other packages (peers)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from automl_ext.bench.cases.case import TRAINING, Bind, Case, Function, as_list, plain
from automl_ext.bench.checking import as_leaves, with_gradients

Call = Callable[[], Any]


def contenders(case: Case, pass_: str, compiled: bool) -> tuple[dict[str, Bind], dict[str, str]]:
    """Choose the contenders of a case.

    Returns:
        The function that binds each contender to tensors, by name, and the reason for each contender left out.
    """
    bound, skipped = {"ours": case.bound(case.ours), "eager": case.bound(case.eager)}, {}
    if not compiled:
        skipped["compiled"] = "not asked for"
    elif case.prepares:
        skipped["compiled"] = "no tensor operations to compile"
    elif case.loop:
        skipped["compiled"] = "the loop over time would be unrolled: minutes of compiling"
    elif case.not_compiled:
        skipped["compiled"] = case.not_compiled
    else:
        bound["compiled"] = plain(compile_afresh(case.eager))
    for name, peer in case.peers.items():
        if pass_ == TRAINING and not peer.trained:
            skipped[name] = "no gradients"
        else:
            bound[name] = peer.bind
    return bound, skipped


def compile_afresh(function: Function) -> Function:
    """Compile ``function`` for one static shape. It compiles at the first call, which is not timed."""
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


def first_results(
    bound: dict[str, Bind], tensors: Sequence[Tensor], trained: int, grad: Tensor | None
) -> tuple[dict[str, list[Tensor]], dict[str, str]]:
    """Call each contender once.

    Returns:
        Its results by name, and the error message of each contender that failed. An error of our op is raised.
    """
    results, failed = {}, {}
    for name, bind in bound.items():
        torch.manual_seed(1)
        try:
            results[name] = results_of(bind, tensors, trained, grad)
        except Exception as error:  # no C++ compiler, an unsupported dtype, arguments of another release
            if name == "ours":
                raise
            failed[name] = f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
    return results, failed


def results_of(bind: Bind, tensors: Sequence[Tensor], trained: int, grad: Tensor | None) -> list[Tensor]:
    """Return the outputs and, with ``grad``, the gradients of the first ``trained`` tensors."""
    if grad is None:
        return as_list(bind(tensors)())
    leaves = as_leaves(tensors, trained)
    return with_gradients(as_list(bind(leaves)()), leaves, trained, grad)


def calls_on(bind: Bind, sets: Sequence[Sequence[Tensor]], trained: int, grads: Sequence[Tensor] | None) -> list[Call]:
    """Return a call for each of the sets of tensors."""
    if grads is None:
        return [bind(tensors) for tensors in sets]
    return [training_call(bind, as_leaves(x, trained), trained, grad) for x, grad in zip(sets, grads, strict=True)]


def timed(bind: Bind, sets: Sequence[Sequence[Tensor]], trained: int, grads: Sequence[Tensor] | None) -> Call:
    """Return a function that makes one call on the next of the sets of tensors, in rotation."""
    calls = calls_on(bind, sets, trained, grads)
    if len(calls) == 1:
        return calls[0]
    turn = itertools.cycle(calls)
    return lambda: next(turn)()


def training_call(bind: Bind, leaves: list[Tensor], trained: int, grad: Tensor) -> Call:
    forward, targets = bind(leaves), leaves[:trained]

    def call() -> Any:
        outputs = forward()
        if isinstance(outputs, Tensor):
            return torch.autograd.grad(outputs, targets, grad)
        on = [y for y in outputs if y.requires_grad]
        return torch.autograd.grad(on, targets, [grad] * len(on))

    return call
