"""Python registrations of ``categorical_log_probs`` and ``policy_gradient_loss``: fake tensors and vmap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import register_fake, register_vmap

from automl_ext.ops._checks import compute_dtype
from automl_ext.ops._register_common import to_front

ops = torch.ops.automl_ext


def register() -> None:
    """Register everything; called once, after the library is loaded."""

    @register_fake("automl_ext::categorical_log_probs")
    def _(logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        return logits.new_empty(actions.shape), logits.new_empty(actions.shape)

    @register_fake("automl_ext::_categorical_log_probs_trained")
    def _(logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        statistics = logits.new_empty([3, *actions.shape], dtype=compute_dtype(logits))
        return logits.new_empty(actions.shape), logits.new_empty(actions.shape), statistics

    @register_fake("automl_ext::_categorical_log_probs_backward")
    def _(
        grad_log_probs: Tensor | None,
        grad_entropy: Tensor | None,
        logits: Tensor,
        actions: Tensor,
        statistics: Tensor | None = None,
    ) -> Tensor:
        return logits.new_empty(logits.shape)

    @register_fake("automl_ext::policy_gradient_loss")
    def _(log_probs: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        loss, policy_loss, value_loss, mean_entropy = (log_probs.new_empty([]) for _ in range(4))
        return loss, policy_loss, value_loss, mean_entropy

    @register_fake("automl_ext::_policy_gradient_loss_trained")
    def _(log_probs: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        losses = (log_probs.new_empty([]) for _ in range(4))
        return *losses, *(log_probs.new_empty(log_probs.shape) for _ in range(2))

    @register_vmap("automl_ext::categorical_log_probs")
    def _(info: Any, in_dims: Any, *tensors: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        moved = (to_front(x, d, info.batch_size) for x, d in zip(tensors, in_dims, strict=True))
        return ops.categorical_log_probs(*moved), (0, 0)

    @register_vmap("automl_ext::_categorical_log_probs_trained")
    def _(info: Any, in_dims: Any, *tensors: Tensor) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        moved = (to_front(x, d, info.batch_size) for x, d in zip(tensors, in_dims, strict=True))
        return ops._categorical_log_probs_trained(*moved), (0, 0, 1)

    # The kernel adds all elements, so the batch is a loop.
    def each(call: Any, batch: int, in_dims: Any, arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        samples = [
            call(*(x if d is None else x.select(d, i) for x, d in zip(arguments, in_dims, strict=True)))
            for i in range(batch)
        ]
        results = tuple(torch.stack(xs) for xs in zip(*samples, strict=True))
        return results, (0,) * len(results)

    @register_vmap("automl_ext::policy_gradient_loss")
    def _(info: Any, in_dims: Any, *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return each(ops.policy_gradient_loss, info.batch_size, in_dims, arguments)

    @register_vmap("automl_ext::_policy_gradient_loss_trained")
    def _(info: Any, in_dims: Any, *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return each(ops._policy_gradient_loss_trained, info.batch_size, in_dims, arguments)
