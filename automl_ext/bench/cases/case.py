"""A case of the benchmark: one op at one shape, its inputs, its contenders and its checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from automl_ext._native import backend

FORWARD, TRAINING = "forward", "forward + backward"
Function = Callable[..., Any]  # (*tensors) -> a tensor, an array, or a tuple of them
Bind = Callable[[Sequence[Tensor]], Callable[[], Any]]  # the preparation of a call for given tensors; it is not timed
Law = Callable[[Tensor, Sequence[Tensor], Tensor | None], float]


@dataclass(frozen=True)
class Peer:
    """Another package's function for the same outputs. ``trained`` says whether it also computes gradients."""

    bind: Bind
    trained: bool


@dataclass(frozen=True)
class Case:
    """One op at one shape.

    Attributes:
        op, shape, dtype: name, shape and dtype of the problem.
        make: make() returns the tensors, on the device.
        ours, eager: our op, and the same computation in eager PyTorch.
        sample: sample(tensors, at) returns the problem restricted to the rows (columns, elements) ``at``.
        pick: pick(output, at) returns the same rows of an output or of a gradient.
        count: number of rows that can be sampled.
        peers: other packages, by name.
        trained: number of tensors that get a gradient.
        compared: number of tensors whose gradient depends on the sampled rows only; None: all.
        saved: saved(inputs, outputs) returns the tensors that the backward pass needs besides gradients.
        from_the_front: only the first rows can be sampled, because a row depends on its position.
        seeded: our op with fixed noise, which can be compared with the reference.
        law: law(inputs, results, grad) returns the error of a contender that uses its own noise; infinite if the
            samples do not follow the distribution.
        softmax: the same computation with PyTorch's softmax in place of our op, which is also timed.
        prepares: whether ``ours`` and ``eager`` have the type Bind, which prepares a call, instead of Function.
        moved: number of bytes that must move; None: the bytes of all inputs and outputs.
        loop: whether the eager formula is a loop over time.
        not_compiled: why the compiled formula is left out; empty: it is measured.
    """

    op: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], list[Tensor]]
    ours: Function
    eager: Function
    sample: Callable[[Sequence[Tensor], Tensor], list[Tensor]]
    pick: Callable[[Tensor, Tensor], Tensor]
    count: int
    peers: dict[str, Peer] = field(default_factory=dict)
    trained: int = 1
    compared: int | None = None
    saved: Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]] = lambda inputs, outputs: outputs
    from_the_front: bool = False
    seeded: Function | None = None
    law: Law | None = None
    softmax: Function | None = None
    prepares: bool = False
    moved: int | None = None
    loop: bool = False
    not_compiled: str = ""

    def bound(self, function: Function) -> Bind:
        return function if self.prepares else plain(function)

    @property
    def passes(self) -> list[str]:
        return [FORWARD, TRAINING] if self.trained else [FORWARD]


def plain(function: Function) -> Bind:
    return lambda tensors: lambda: function(*tensors)


def by_reference(op: Function) -> Function:
    """Return the same call with the reference backend: PyTorch operations, loops over time."""

    def run(*args: object) -> Any:
        with backend("reference"):
            return op(*args)

    return run


def as_list(outputs: Any) -> list[Tensor]:
    return [torch.as_tensor(y) for y in (outputs if isinstance(outputs, (tuple, list)) else (outputs,))]


def nbytes(tensors: Sequence[Tensor]) -> int:
    return sum(x.nbytes for x in tensors)
