"""The two alternating steps of a differentiable search: one on the weights, one on α, each on its own batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from automl_ext.data.images import Split
from automl_ext.nas.retraining.supernet_step import part_loss, supernet_step
from automl_ext.nas.spaces.supernet import Choice, Supernet
from automl_ext.training import ranks

Sampler = Callable[[Iterable[Tensor], float, torch.Generator], list[Choice]]  # (α, τ, random generator)


def weight_step(
    supernet: Supernet,
    optimizer: Optimizer,
    grad_clip: float,
    batch: Split,
    tau: float,
    rng: torch.Generator,
    sample: Sampler,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Take one SGD step on the supernet's weights; see :func:`~automl_ext.nas.retraining.supernet_step.supernet_step`.

    Args:
        grad_clip: the largest norm of the gradient.
        batch: images and labels.
        tau: the temperature τ.
        rng: generator of the noise.
        sample: chooses the operations that run.
        class_weights: weights of the classes in the loss, [classes]; None: 1.

    Returns:
        The loss of the batch, 0-dim, detached; with several ranks, this rank's part of it.
    """
    with torch.no_grad():
        choices = sample(supernet.alphas, tau, rng)
    return supernet_step(supernet, optimizer, batch, grad_clip, choices, class_weights)


def alpha_step(
    supernet: Supernet,
    optimizer: Optimizer,
    batch: Split,
    tau: float,
    rng: torch.Generator,
    sample: Sampler,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Take one step on α. No gradients of the weights are computed.

    Args:
        batch: images and labels, apart from those of the weights.
        tau: the temperature τ.
        rng: generator of the noise.
        sample: chooses the operations that run.
        class_weights: weights of the classes in the loss, [classes]; None: 1.

    Returns:
        The loss of the batch, 0-dim, detached; with several ranks, this rank's part of it.
    """
    with frozen(supernet.weights()):
        choices = sample(supernet.alphas, tau, rng)
        loss = part_loss(supernet, batch, choices, class_weights)
        optimizer.zero_grad()
        loss.backward()
        ranks.add_up_gradients(supernet.alphas)
        optimizer.step()
    return loss.detach()


@contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Disable the gradients of the parameters within the context."""
    parameters = list(parameters)
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
