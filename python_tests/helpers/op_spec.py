"""What the shared conformance suite needs to know of an op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

import automl_ext


def _reference_backend(dtype: torch.dtype) -> AbstractContextManager:
    return automl_ext.backend("reference")


@dataclass(frozen=True)
class OpSpec:
    """One op. `size` is the length of the dim it works along.

    make(size, dim, generator): its float tensors, in float64, and whatever else it takes, by keyword.
    call(tensors, dim, **others): the public function; a tensor or a tuple of them.
    eager(tensors, dim, **others): what a user would write in plain PyTorch, in the tensors' dtype.
    exact(dtype): a context in which `call` on float64 tensors answers exactly what dtype should have.
    smooth(tensors, dim): which rows, of size 1 along dim, have a gradient; None: all have.
    noise_seed: of the Gumbel noise that is added to the first tensor; None: there is none.
    native(tensors, dim, **others): (overload name, arguments) of each torch.ops call behind it, for opcheck.
    """

    name: str
    make: Callable[[int, int, torch.Generator], tuple[list[Tensor], dict]]
    call: Callable[..., Tensor | tuple[Tensor, ...]]
    native: Callable[..., list[tuple[str, tuple]]]
    eager: Callable[..., Tensor | tuple[Tensor, ...]]
    exact: Callable[[torch.dtype], AbstractContextManager] = _reference_backend
    smooth: Callable[[Sequence[Tensor], int], Tensor] | None = None
    noise_seed: int | None = None
    differentiable: bool = True
    autocast_dtype: torch.dtype | None = torch.float32  # of the result for bfloat16 inputs; None: it keeps theirs
    dims: Sequence[int] = (0, 1, -1)
    rowwise: bool = True  # results are compared row by row along dim; else as a whole

    def __str__(self) -> str:
        return self.name

    def outputs(
        self, tensors: Sequence[Tensor], dim: int, call: Callable | None = None, **others: object
    ) -> tuple[Tensor, ...]:
        result = (call or self.call)(tensors, dim, **others)
        return result if isinstance(result, tuple) else (result,)
