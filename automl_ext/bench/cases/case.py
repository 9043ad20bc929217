"""One op at one shape: its inputs, who computes it, how a part of it is checked, and the bytes it cannot avoid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from automl_ext._native import backend

FORWARD, TRAINING = "forward", "forward + backward"
Function = Callable[..., Any]  # of the case's tensors; a tensor, an array, or a tuple of them
Bind = Callable[[Sequence[Tensor]], Callable[[], Any]]  # what it prepares for given tensors is not timed
Law = Callable[[Tensor, Sequence[Tensor], Tensor | None], float]


@dataclass(frozen=True)
class Peer:
    """Another package's way to the same outputs. ``trained``: it gives gradients too."""

    bind: Bind
    trained: bool


@dataclass(frozen=True)
class Case:
    """One op at one shape.

    make(): its tensors, on the device.
    sample(tensors, at): the problem of the rows (columns, elements) `at` alone.
    pick(output, at): the same rows of an output or of a gradient.
    saved(inputs, outputs): what the backward pass cannot do without, besides the gradients of the outputs.
    seeded: ours with fixed noise, which alone can be compared with the reference.
    law(inputs, results, grad): the error of a contender that draws its own noise; infinite where the samples cannot
      come from the distribution asked for.
    """

    op: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], list[Tensor]]
    ours: Function
    eager: Function
    sample: Callable[[Sequence[Tensor], Tensor], list[Tensor]]
    pick: Callable[[Tensor, Tensor], Tensor]
    count: int  # of rows that can be sampled
    peers: dict[str, Peer] = field(default_factory=dict)
    trained: int = 1  # so many of the tensors get a gradient,
    compared: int | None = None  # and of so many the sampled rows have it for themselves (None: of all)
    saved: Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]] = lambda inputs, outputs: outputs
    from_the_front: bool = False  # a row depends on its place: only the first ones make a problem of their own
    seeded: Function | None = None
    law: Law | None = None
    softmax: bool = False  # torch.softmax of the same rows is a yardstick
    prepares: bool = False  # ours and eager are of kind Bind
    moved: int | None = None  # bytes that must move, where it is not inputs and outputs whole
    loop: bool = False  # the eager formula is a loop over time

    def bound(self, function: Function) -> Bind:
        return function if self.prepares else plain(function)

    @property
    def passes(self) -> list[str]:
        return [FORWARD, TRAINING] if self.trained else [FORWARD]


def plain(function: Function) -> Bind:
    return lambda tensors: lambda: function(*tensors)


def by_reference(op: Function) -> Function:
    """The same call, answered by PyTorch: the formula in tensor operations, over time a loop."""

    def run(*args: object) -> Any:
        with backend("reference"):
            return op(*args)

    return run


def as_list(outputs: Any) -> list[Tensor]:
    return [torch.as_tensor(y) for y in (outputs if isinstance(outputs, (tuple, list)) else (outputs,))]


def nbytes(tensors: Sequence[Tensor]) -> int:
    return sum(x.nbytes for x in tensors)
