"""What the ops are compared with: plain PyTorch, as people write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

import automl_ext


def mixed_op(inputs: Sequence[Tensor], weights: Tensor) -> Tensor:
    return sum(w * x for w, x in zip(weights, inputs, strict=True))  # type: ignore[return-value]


def by_reference(op: Callable) -> Callable:
    """The same call, answered by PyTorch: the formula in tensor operations, over time a loop."""

    def run(*args: object) -> object:
        with automl_ext.backend("reference"):
            return op(*args)

    return run
