"""The parameters of a small network as one vector, so that clipping and an optimizer step take few calls."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from automl_ext.training.checks import check_range
from automl_ext.training.files.reading import short
from automl_ext.training.machine.memory import check_memory

COPIES = 3  # of every parameter: its value, its gradient and an average of the optimizer


def check_layers(sizes: Sequence[int], networks: int = 1) -> None:
    """Check that dense float32 layers fit into memory, before any of them is allocated.

    Args:
        sizes: the number of inputs, then the number of units of each layer.
        networks: the number of networks with these sizes.

    Raises:
        UserError: names ``hidden``, the memory that the layers need and the memory of the machine.
    """
    check_memory("hidden", networks * COPIES * 4 * sum(inputs * outputs for inputs, outputs in pairwise(sizes)))


def check_hidden(config: Any, units: int = 1, layers: int = 0) -> None:
    """Check ``config.hidden``: at least ``layers`` hidden layers, with at least ``units`` units each.

    Raises:
        ValueError: too few layers, or too few units in one.
        UserError: the layers do not fit into memory.
    """
    hidden = config.hidden
    if len(hidden) < layers or min(hidden, default=units) < units:
        raise ValueError(
            f"hidden: expected at least {layers} layers of at least {units} units each, got {short(tuple(hidden))}"
        )
    check_layers([1, *hidden])  # the networks check the exact sizes


def check_max_grad_norm(config: Any) -> None:
    """Check the norm to which gradients are clipped; ``inf`` turns clipping off.

    Raises:
        ValueError: the norm is not above 0. A norm of 0 would stop all learning.
    """
    if config.max_grad_norm != math.inf:
        check_range(config, "max_grad_norm", above=0)


def flatten_parameters(module: nn.Module) -> nn.Parameter:
    """Move all parameters of a module into one vector. The module's parameters and gradients become views of it.

    Move the module to its device first.

    Returns:
        The vector. Its ``grad`` is a tensor: ``backward`` adds to it, and ``grad.zero_()`` clears it. It stays 0 for
        parameters that require no gradient, and is None if no parameter requires one.
    """
    parameters = list(module.parameters())
    sizes = [p.numel() for p in parameters]
    trained = any(p.requires_grad for p in parameters)
    flat = nn.Parameter(parameters_to_vector(parameters).detach().clone(), trained)
    for p, data in zip(parameters, flat.data.split(sizes), strict=True):
        p.data = data.view_as(p)
    if flat.requires_grad:
        flat.grad = torch.zeros_like(flat)
        for p, gradient in zip(parameters, flat.grad.split(sizes), strict=True):
            p.grad = gradient.view_as(p) if p.requires_grad else None
    return flat


def clip_norm(gradient: Tensor, max_norm: float) -> Tensor:
    """Scale a gradient vector in place to a norm of at most ``max_norm``; inf leaves it unchanged.

    The result equals that of ``torch.nn.utils.clip_grad_norm_`` for one vector, with less overhead.

    Returns:
        The norm before scaling, 0-dim.
    """
    norm = torch.linalg.vector_norm(gradient)
    gradient.mul_((norm + 1e-6).reciprocal_().mul_(max_norm).clamp_(max=1.0))
    return norm


def clipped_gradient(
    loss: Tensor,
    parameters: nn.Parameter,
    max_norm: float,
    inputs: Sequence[nn.Parameter] | None = None,
    keep_graph: bool = False,
) -> Tensor:
    """Set ``parameters.grad`` to the gradient of ``loss``, clipped to ``max_norm``; return its norm before clipping.

    Args:
        parameters: the vector of :func:`flatten_parameters`.
        inputs: the network's parameters, if the loss depends on other networks too, which then get no gradient.
        keep_graph: whether another loss of the same forward pass follows.
    """
    gradient = parameters.grad  # the gradients of the network's parameters are views of it
    assert gradient is not None
    gradient.zero_()
    loss.backward(inputs=inputs, retain_graph=keep_graph)
    return clip_norm(gradient, max_norm)


# For a small network, the Python code of the optimizers of torch takes several times as long as their arithmetic. The
# following ones have the same results for one vector, and the same state. ``hooked`` keeps torch from wrapping every
# step for its profiler, which takes as long again.


class Uncompiled(torch.optim.Optimizer):
    """An optimizer that does not import the compiler of torch, which takes two CPU-seconds.

    The methods of torch import it to exclude themselves from ``torch.compile``.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class FlatAdam(Uncompiled, torch.optim.Adam):
    """Adam for one vector of parameters, as ``torch.optim.Adam(fused=True)``."""

    def __init__(self, parameters: nn.Parameter, lr: float, eps: float = 1e-8) -> None:
        super().__init__([parameters], lr, eps=eps, fused=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        group = self.param_groups[0]
        parameters = group["params"][0]
        state = self.state[parameters]
        if not state:
            state["step"] = torch.zeros((), device=parameters.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameters), torch.zeros_like(parameters)
        state["step"] += 1
        torch._fused_adam_(
            [parameters],
            [parameters.grad],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    step.hooked = True  # type: ignore[attr-defined]


class FlatRMSprop(Uncompiled, torch.optim.RMSprop):
    """RMSprop for one vector of parameters, as ``torch.optim.RMSprop`` without momentum."""

    def __init__(self, parameters: nn.Parameter, lr: float, alpha: float = 0.99, eps: float = 1e-8) -> None:
        super().__init__([parameters], lr, alpha=alpha, eps=eps, foreach=False)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        group = self.param_groups[0]
        parameters = group["params"][0]
        state, gradient = self.state[parameters], parameters.grad
        if not state:
            state["step"], state["square_avg"] = torch.zeros(()), torch.zeros_like(parameters)
        state["step"] += 1
        average = state["square_avg"].mul_(group["alpha"]).addcmul_(gradient, gradient, value=1 - group["alpha"])
        parameters.addcdiv_(gradient, average.sqrt().add_(group["eps"]), value=-group["lr"])

    step.hooked = True  # type: ignore[attr-defined]


class CenteredRMSprop(Uncompiled, torch.optim.RMSprop):
    """RMSprop as in the code of Mnih et al. 2015, for one vector: θ ← θ − lr · g / √(E[g²] − E[g]² + ε).

    ``torch.optim.RMSprop(centered=True)`` has ε outside of the root.
    """

    def __init__(self, parameters: nn.Parameter, lr: float, alpha: float = 0.95, eps: float = 0.01) -> None:
        super().__init__([parameters], lr, alpha=alpha, eps=eps, centered=True, foreach=False)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        group = self.param_groups[0]
        parameters = group["params"][0]
        state, gradient, alpha = self.state[parameters], parameters.grad, group["alpha"]
        if not state:
            state["step"] = torch.zeros(())
            state["square_avg"], state["grad_avg"] = torch.zeros_like(parameters), torch.zeros_like(parameters)
        state["step"] += 1
        mean = state["grad_avg"].mul_(alpha).add_(gradient, alpha=1 - alpha)
        square = state["square_avg"].mul_(alpha).addcmul_(gradient, gradient, value=1 - alpha)
        variance = torch.addcmul(square, mean, mean, value=-1)
        parameters.addcdiv_(gradient, variance.add_(group["eps"]).sqrt_(), value=-group["lr"])

    step.hooked = True  # type: ignore[attr-defined]
