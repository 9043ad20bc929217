"""Parameters of a small network as one vector: clipping and an optimiser step cost a few calls, not some per layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector


def flatten_parameters(module: nn.Module) -> nn.Parameter:
    """All parameters as one vector, of which the module's own become views; likewise their gradients.

    Move the module to its device first.

    Returns:
        The vector, with ``grad`` set; ``backward`` adds to it, ``grad.zero_()`` clears it.
    """
    parameters = list(module.parameters())
    flat = nn.Parameter(parameters_to_vector(parameters).detach().clone())
    flat.grad = torch.zeros_like(flat)
    sizes = [p.numel() for p in parameters]
    for p, data, grad in zip(parameters, flat.data.split(sizes), flat.grad.split(sizes), strict=True):
        p.data, p.grad = data.view_as(p), grad.view_as(p)
    return flat


def clip_norm(gradient: Tensor, max_norm: float) -> Tensor:
    """Scale the vector down in place to at most ``max_norm``; the norm it had. What ``clip_grad_norm_`` does."""
    norm = torch.linalg.vector_norm(gradient)
    gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


class RMSprop:
    """``torch.optim.RMSprop`` over one vector, in a fifth of its time; its statistics may be shared by processes.

    Args:
        parameters: the vector; ``parameters.grad`` is the gradient.
        lr: kept in ``param_groups``, as schedules expect it.
        square_avg: running mean of the squared gradient, updated in place; zeros where None.
    """

    def __init__(
        self, parameters: nn.Parameter, lr: float, alpha: float, eps: float, square_avg: Tensor | None = None
    ) -> None:
        self.parameters, self.alpha, self.eps = parameters, alpha, eps
        self.param_groups: list[dict[str, Any]] = [{"lr": lr}]
        self.square_avg = torch.zeros_like(parameters.detach()) if square_avg is None else square_avg

    @torch.no_grad()
    def step(self) -> None:
        gradient = self.parameters.grad
        assert gradient is not None
        self.square_avg.mul_(self.alpha).addcmul_(gradient, gradient, value=1 - self.alpha)
        denominator = self.square_avg.sqrt().add_(self.eps)
        self.parameters.addcdiv_(gradient, denominator, value=-self.param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        return {"square_avg": self.square_avg, "lr": self.param_groups[0]["lr"]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.square_avg.copy_(state["square_avg"])
        self.param_groups[0]["lr"] = state["lr"]
