"""The description of an op for the shared conformance suite."""

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

    make(size, dim, generator): returns the float tensors in float64 and the other arguments by keyword.
    call(tensors, dim, **others): calls the public function; returns a tensor or a tuple of tensors.
    eager(tensors, dim, **others): the same in plain PyTorch, in the dtype of the tensors.
    exact(dtype): a context in which `call` on float64 tensors gives the exact result for dtype.
    smooth(tensors, dim): a mask of the rows, of size 1 along dim, that are differentiable; None: all are.
    noise_seed: seed of the Gumbel noise that is added to the first tensor; None: there is no noise.
    native(tensors, dim, **others): (overload name, arguments) of each torch.ops call of the op, for opcheck.
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
    autocast_dtype: torch.dtype | None = torch.float32  # of the result for bfloat16 inputs; None: bfloat16
    lower_precision: bool = False  # under autocast, float32 inputs are computed in its dtype, as by F.linear
    dims: Sequence[int] = (0, 1, -1)
    rowwise: bool = True  # compare results row by row along dim, else as a whole

    def __str__(self) -> str:
        return self.name

    def outputs(
        self, tensors: Sequence[Tensor], dim: int, call: Callable | None = None, **others: object
    ) -> tuple[Tensor, ...]:
        result = (call or self.call)(tensors, dim, **others)
        return result if isinstance(result, tuple) else (result,)
