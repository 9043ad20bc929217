"""The two alternating steps of a differentiable search: the weights on one batch, α on another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from automl_ext.data.images import Split
from automl_ext.nas.differentiable.samplers import Sampler, sample
from automl_ext.nas.spaces.supernet import Supernet


def weight_step(
    supernet: Supernet,
    optimizer: Optimizer,
    batch: Split,
    tau: float,
    grad_clip: float,
    rng: torch.Generator,
    sample: Sampler = sample,
) -> Tensor:
    """Step 1; the loss.

    zero_grad sets the gradients to None, so the operations that were not drawn rest entirely in this step: no
    weight decay, no momentum. The official code's zeroed gradients let both go on.
    """
    with torch.no_grad():
        choices = sample(supernet.alphas, tau, rng)
    loss = F.cross_entropy(supernet(batch.images, *choices), batch.labels)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(supernet.weights(), grad_clip)
    optimizer.step()
    return loss.detach()


def alpha_step(
    supernet: Supernet,
    optimizer: Optimizer,
    batch: Split,
    tau: float,
    rng: torch.Generator,
    sample: Sampler = sample,
) -> Tensor:
    """Step 2; the loss. No gradient of a weight is computed."""
    with frozen(supernet.weights()):
        choices = sample(supernet.alphas, tau, rng)
        loss = F.cross_entropy(supernet(batch.images, *choices), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.detach()


@contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Within, the parameters need no gradient."""
    parameters = list(parameters)
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
