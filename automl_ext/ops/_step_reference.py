"""Whole training steps in PyTorch: what the kernels of :mod:`automl_ext.ops.steps` compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from automl_ext.ops._targets_reference import td_targets
from automl_ext.ops.policy import categorical_reference, loss_reference

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


def perceptron_size(sizes: Sequence[int], layer_norm: bool = False) -> int:
    """Return the number of parameters of a perceptron."""
    weights = sum(outputs * (inputs + 1) for inputs, outputs in pairwise(sizes))
    return weights + 2 * sum(sizes[1:-1]) * layer_norm


def perceptron(
    x: Tensor, parameters: Tensor, sizes: Sequence[int], activation: str, layer_norm: bool = False
) -> Tensor:
    """Compute the outputs of a perceptron whose layers are in one vector, in the order of an ``nn.Sequential``."""
    at = 0

    def take(*shape: int) -> Tensor:
        nonlocal at
        at += math.prod(shape)
        return parameters[at - math.prod(shape) : at].view(shape)

    for inputs, outputs in pairwise(sizes[:-1]):
        x = F.linear(x, take(outputs, inputs), take(outputs))
        if layer_norm:
            x = F.layer_norm(x, (outputs,), take(outputs), take(outputs))
        x = ACTIVATIONS[activation](x)
    return F.linear(x, take(sizes[-1], sizes[-2]), take(sizes[-1]))


def take_step(
    parameters: Tensor,
    gradient: Tensor,
    moments: tuple[Tensor | None, Tensor],
    step: Tensor,
    max_norm: float,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """Clip the gradient to ``max_norm``, and take a step of Adam, or of RMSprop without the first moment."""
    average, square = moments
    gradient = gradient * (max_norm / (gradient.norm() + 1e-6)).clamp(max=1)
    step += 1
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    if average is None:
        parameters.addcdiv_(gradient, square.sqrt() + eps, value=-lr)
        return
    average.lerp_(gradient, 1 - betas[0])
    root = (square / (1 - betas[1] ** float(step))).sqrt() + eps
    parameters.addcdiv_(average, root, value=-lr / (1 - betas[0] ** float(step)))


def policy_act(
    parameters: Tensor,
    observations: Tensor,
    noise: Tensor | None,
    masks: Tensor | None,
    actor: Sequence[int],
    critic: Sequence[int],
    activation: str,
    gaussian: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    sizes = [actor[-1] * gaussian, perceptron_size(actor), perceptron_size(critic)]
    log_std, policy, value = torch.split(parameters.detach(), sizes)
    outputs = perceptron(observations, policy, actor, activation)
    values = perceptron(observations, value, critic, activation).squeeze(1)
    if gaussian:
        z = torch.zeros_like(outputs) if noise is None else noise
        return outputs + z * log_std.exp(), -(0.5 * z * z + log_std + 0.5 * math.log(2 * math.pi)).sum(1), values
    log_p = (outputs if masks is None else outputs.masked_fill(~masks, -math.inf)).log_softmax(1)
    actions = log_p.argmax(1)
    if noise is not None:  # the last possible action whose predecessors have a probability of at most the noise
        before = log_p.exp().cumsum(1) - log_p.exp()
        possible = (before <= noise.unsqueeze(1)) & (log_p > -math.inf)
        actions = (possible * torch.arange(1, actor[-1] + 1, device=noise.device)).argmax(1)
    return actions, log_p.gather(1, actions.unsqueeze(1)).squeeze(1), values


def policy_gradient_step(
    parameters: Tensor,
    moments: tuple[Tensor | None, Tensor],
    step: Tensor,
    observations: Tensor,
    actions: Tensor,
    advantages: Tensor,
    returns: Tensor,
    rows: Tensor | None,
    masks: Tensor | None,
    old_log_probs: Tensor | None,
    old_values: Tensor | None,
    actor: Sequence[int],
    critic: Sequence[int],
    activation: str,
    normalize: bool,
    losses: tuple[float, float, float, float],
    max_norm: float,
    max_kl: float,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> Tensor:
    if rows is not None:
        observations, actions, advantages, returns = (x[rows] for x in (observations, actions, advantages, returns))
        masks, old_log_probs, old_values = (x if x is None else x[rows] for x in (masks, old_log_probs, old_values))
    clip = losses[0]
    if normalize:
        advantages = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)
    flat = parameters.detach().clone().requires_grad_()
    with torch.enable_grad():
        gaussian = actions.is_floating_point()
        sizes = [actor[-1] * gaussian, perceptron_size(actor), perceptron_size(critic)]
        log_std, policy, value = torch.split(flat, sizes)
        outputs = perceptron(observations, policy, actor, activation)
        values = perceptron(observations, value, critic, activation).squeeze(1)
        if gaussian:
            z = (actions - outputs) * (-log_std).exp()
            log_probs = -(0.5 * z * z + log_std + 0.5 * math.log(2 * math.pi)).sum(1)
            entropy = (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum().expand(len(outputs))
        else:
            logits = outputs if masks is None else outputs.masked_fill(~masks, -math.inf)
            log_probs, entropy = categorical_reference(logits, actions)
        terms = log_probs, entropy, values, advantages, returns, old_log_probs, old_values, None
        loss, policy_loss, value_loss, mean_entropy = loss_reference(*terms, *losses)
        (gradient,) = torch.autograd.grad(loss, flat)
    kl = clipped = loss.new_zeros([])
    if old_log_probs is not None:
        change = log_probs.detach() - old_log_probs
        kl, clipped = (change.expm1() - change).mean(), (change.expm1().abs() > clip).to(loss.dtype).mean()
    metrics = torch.stack([policy_loss, value_loss, mean_entropy, kl, clipped, gradient.norm()]).detach()
    if not kl > max_kl:
        take_step(parameters, gradient, moments, step, max_norm, lr, betas, eps)
    return metrics


def td_step(
    parameters: Tensor,
    target: Tensor,
    moments: tuple[Tensor, Tensor],
    step: Tensor,
    observations: Tensor,
    actions: Tensor,
    returns: Tensor,
    next_observations: Tensor,
    terminated: Tensor,
    discounts: Tensor,
    weights: Tensor | None,
    sizes: Sequence[int],
    activation: str,
    layer_norm: bool,
    double: bool,
    huber: bool,
    max_norm: float,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> tuple[Tensor, Tensor]:
    network = sizes, activation, layer_norm
    online_q = perceptron(next_observations, parameters.detach(), *network) if double else None
    next_q = perceptron(next_observations, target.detach(), *network)
    targets = td_targets(returns, next_q, terminated, discounts, online_q, 1.0)
    flat = parameters.detach().clone().requires_grad_()
    with torch.enable_grad():
        q = perceptron(observations, flat, *network).gather(1, actions.unsqueeze(1)).squeeze(1)
        losses = (F.smooth_l1_loss if huber else F.mse_loss)(q, targets, reduction="none")
        loss = (losses if weights is None else weights * losses).mean()
        (gradient,) = torch.autograd.grad(loss, flat)
    metrics = torch.stack([loss, q.mean(), gradient.norm()]).detach()
    take_step(parameters, gradient, moments, step, max_norm, lr, betas, eps)
    return metrics, (q.detach() - targets).abs()
