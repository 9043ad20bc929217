"""Clipping and the step of Adam for one vector on the CPU, in NumPy.

For a vector of a few thousand elements, most of the time of ``torch.optim.Adam.step`` is the overhead of its calls.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer


def clip_norm(gradient: np.ndarray, max_norm: float) -> float:
    """Scale a gradient vector in place to a norm of at most ``max_norm``; return its norm before."""
    norm = math.sqrt(gradient.dot(gradient))
    if norm > max_norm:
        gradient *= max_norm / (norm + 1e-6)
    return norm


def step(optimizer: Optimizer, parameter: nn.Parameter) -> None:
    """Take the step of ``optimizer``, an Adam whose only parameter this is (Kingma and Ba 2015, algorithm 1).

    The state is that of the optimizer, so its own steps and checkpoints can follow. The optimizer has no weight decay
    and no variant such as AMSGrad.
    """
    state, settings = optimizer.state[parameter], optimizer.param_groups[0]
    if not state:
        state["step"] = torch.zeros(())
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    (beta1, beta2), count = settings["betas"], float(state["step"]) + 1
    state["step"].fill_(count)
    assert parameter.grad is not None
    g, m, v = parameter.grad.numpy(), state["exp_avg"].numpy(), state["exp_avg_sq"].numpy()
    work = g - m
    work *= 1 - beta1
    m += work
    np.multiply(g, g, out=work)
    work *= 1 - beta2
    v *= beta2
    v += work
    np.sqrt(v, out=work)
    work *= 1 / math.sqrt(1 - beta2**count)
    work += settings["eps"]
    np.divide(m, work, out=work)
    work *= settings["lr"] / (1 - beta1**count)
    weights = parameter.detach().numpy()
    weights -= work
