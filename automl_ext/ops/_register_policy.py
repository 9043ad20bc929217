"""Python registrations of ``categorical_log_probs`` and ``clipped_surrogate``: fake tensors and vmap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import register_fake, register_vmap

ops = torch.ops.automl_ext


def _together(in_dims: Any, tensors: Any) -> list[Tensor]:
    """Return tensors with the batch dim first; one without it is expanded."""
    batch = next(x.shape[d] for x, d in zip(tensors, in_dims, strict=True) if d is not None)
    pairs = zip(tensors, in_dims, strict=True)
    return [x.expand(batch, *x.shape) if d is None else x.movedim(d, 0) for x, d in pairs]


def register() -> None:
    """Register everything; called once, after the library is loaded."""

    @register_fake("automl_ext::categorical_log_probs")
    def _(logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        return logits.new_empty(actions.shape), logits.new_empty(actions.shape)

    @register_fake("automl_ext::_categorical_log_probs_backward")
    def _(grad_log_probs: Tensor | None, grad_entropy: Tensor | None, logits: Tensor, actions: Tensor) -> Tensor:
        return logits.new_empty(logits.shape)

    @register_fake("automl_ext::clipped_surrogate")
    def _(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float) -> Tensor:
        return log_probs.new_empty(log_probs.shape)

    @register_fake("automl_ext::_clipped_surrogate_backward")
    def _(grad: Tensor, log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float) -> Tensor:
        return log_probs.new_empty(log_probs.shape)

    @register_vmap("automl_ext::categorical_log_probs")
    def _(info: Any, in_dims: Any, *tensors: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        return ops.categorical_log_probs(*_together(in_dims, tensors)), (0, 0)

    @register_vmap("automl_ext::clipped_surrogate")
    def _(info: Any, in_dims: Any, *arguments: Any) -> tuple[Tensor, int]:
        *tensors, clip = arguments
        return ops.clipped_surrogate(*_together(in_dims[:3], tensors), clip), 0
