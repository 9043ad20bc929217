"""Whole training steps of small perceptrons in one call: networks, loss, gradient, clipping and optimizer; and acting.

The steps change their arguments: the vector of all parameters, and the optimizer's state, which is that of
``torch.optim.Adam`` or ``torch.optim.RMSprop``.
``_step_reference.py`` is the same in PyTorch, and is used where there is no kernel: on other devices than the
CPU, and with the backend ``reference``.

The bits of a result depend neither on the number of threads nor on how they share the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops import _step_reference as reference
from automl_ext.ops._checks import check_bool, check_number, describe, is_dense, shown, wrong_device, wrong_type

MOST_LAYERS = 8


class PolicyStepMetrics(NamedTuple):
    """Means over the rows of a :func:`policy_gradient_step`, 0-dim, before the step.

    Attributes:
        policy_loss, value_loss, entropy: the terms of the loss, without their weights.
        kl: the estimate mean of r − 1 − log r of KL(π_old ‖ π); 0 without ``old_log_probs``.
        clip_fraction: fraction of the rows with \\|r − 1\\| > ε; 0 without ``old_log_probs``.
        grad_norm: norm of the gradient before clipping.
    """

    policy_loss: Tensor
    value_loss: Tensor
    entropy: Tensor
    kl: Tensor
    clip_fraction: Tensor
    grad_norm: Tensor


def policy_gradient_step(
    parameters: Tensor,
    moments: tuple[Tensor | None, Tensor],
    step: Tensor,
    observations: Tensor,
    actions: Tensor,
    advantages: Tensor,
    returns: Tensor,
    *,
    actor: Sequence[int],
    critic: Sequence[int],
    lr: float,
    rows: Tensor | None = None,
    masks: Tensor | None = None,
    old_log_probs: Tensor | None = None,
    old_values: Tensor | None = None,
    activation: str = "tanh",
    normalize_advantages: bool = False,
    clip: float = 0.2,
    value_clip: float = 0.2,
    vf_coef: float = 0.5,
    ent_coef: float = 0.0,
    max_norm: float = math.inf,
    max_kl: float = math.inf,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> PolicyStepMetrics:
    """Take one step of Adam or RMSprop on the loss of PPO or A2C, for two perceptrons π(a|s) and V(s).

    The loss is that of :func:`automl_ext.policy_gradient_loss`, the mean over the rows: PPO's with ``old_log_probs``
    (Schulman et al. 2017, equations 7 and 9), else A2C's (Mnih et al. 2016, section 4). The gradient is clipped to
    ``max_norm``.

    Args:
        parameters: float32 or float64 [P], contiguous, changed. It has, one after the other: for Gaussian actions the
            logarithms of the standard deviations [A]; for each layer of the actor its weight [outputs, inputs] and its
            bias; the same of the critic. This is the order of ``parameters()`` of modules.
        moments: the averages of the gradient and of its square, [P] each, changed: ``exp_avg`` and ``exp_avg_sq`` of
            ``torch.optim.Adam``. (None, ``square_avg``): RMSprop.
        step: float32, 0-dim, the number of steps taken so far, changed.
        observations: [N, inputs].
        actions: int64 [N] for a categorical policy, whose logits are the actor's outputs; float [N, A] for a Gaussian
            one, whose means they are.
        advantages, returns: A(s, a) and G, [N].
        actor, critic: the number of inputs, then the units of each layer; the critic has one output.
        lr: learning rate.
        rows: int64 [M], the steps to learn from. None: all N.
        masks: bool [N, A], False where a categorical action is not possible.
        old_log_probs, old_values: log π(a|s) and V(s) of the policy that acted, [N]. See ``policy_gradient_loss``.
        activation: of hidden layers, ``tanh`` or ``relu``.
        normalize_advantages: shift and scale the advantages of the rows to mean 0 and standard deviation 1.
        clip, value_clip, vf_coef, ent_coef: see ``policy_gradient_loss``.
        max_norm: largest norm of the gradient.
        max_kl: if the estimate of KL(π_old ‖ π) on the rows is larger, nothing is changed.
        betas: decay of the moments; RMSprop reads the second one, its ``alpha``.
        eps: added to the root of the second moment.

    Raises:
        TypeError, ValueError, IndexError: a wrong dtype, shape, device, size or number, a row or an action outside of
            its range, or changed tensors that share memory.
    """
    given = parameters, moments, step, observations, actions, advantages, returns
    optional = rows, masks, old_log_probs, old_values
    losses = clip, value_clip, vf_coef, ent_coef
    network = actor, critic, activation, normalize_advantages, losses
    args: tuple[Any, ...] = (*given, *optional, *network, max_norm, max_kl, lr, betas, eps)
    if not runs_in_one_call(parameters):
        _check_policy(*args)
        with torch.no_grad():
            return PolicyStepMetrics(*reference.policy_gradient_step(*args).unbind())
    try:
        average, square = moments
        tensors = observations, actions, masks, old_log_probs, old_values, advantages, returns, rows
        numbers = *losses, max_norm, max_kl, lr, *betas, eps
        relu = reference.ACTIVATIONS[activation] is torch.relu
        metrics: Tensor = torch.ops.automl_ext.policy_gradient_step.default(
            parameters.detach(), average, square, step, *tensors, actor, critic, relu, normalize_advantages, *numbers
        )
    except Exception:
        _check_policy(*args)
        raise
    return PolicyStepMetrics(*metrics.unbind())


class PolicyActions(NamedTuple):
    """Results of :func:`policy_act`.

    Attributes:
        actions: int64 [N], or float [N, A] of a Gaussian policy.
        log_probs, values: log π(a|s) and V(s), [N].
    """

    actions: Tensor
    log_probs: Tensor
    values: Tensor


def policy_act(
    parameters: Tensor,
    observations: Tensor,
    noise: Tensor | None = None,
    *,
    actor: Sequence[int],
    critic: Sequence[int],
    gaussian: bool = False,
    masks: Tensor | None = None,
    activation: str = "tanh",
) -> PolicyActions:
    """Choose actions a ~ π(·|s), and compute log π(a|s) and V(s), for the perceptrons of :func:`policy_gradient_step`.

    For a step in an environment with :func:`policy_gradient_step` as the update: the three are what it reads later.

    Args:
        parameters, actor, critic, activation: see :func:`policy_gradient_step`.
        observations: [N, inputs].
        noise: determines the actions. Uniform numbers in [0, 1), [N], of a categorical policy: the action is that where
            the sum of the probabilities π(0|s) + π(1|s) + … exceeds the number. Standard normal numbers [N, A] of a
            Gaussian one. None: the most probable actions.
        gaussian: whether the policy is Gaussian.
        masks: bool [N, A], False where a categorical action is not possible.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device or size.
    """
    args = parameters, observations, noise, masks, actor, critic, activation, gaussian
    if not runs_in_one_call(parameters):
        _check_act(*args)
        with torch.no_grad():
            return PolicyActions(*reference.policy_act(*args))
    try:
        relu = reference.ACTIVATIONS[activation] is torch.relu
        results = torch.ops.automl_ext.policy_act.default(
            parameters.detach(), observations, masks, noise, actor, critic, relu, gaussian
        )
    except Exception:
        _check_act(*args)
        raise
    return PolicyActions(*results)


class TdStepMetrics(NamedTuple):
    """Results of a :func:`td_step`, before the step.

    Attributes:
        loss, value, grad_norm: the weighted mean loss, the mean of Q(s, a), and the norm of the gradient before
            clipping, 0-dim.
        errors: \\|Q(s, a) − y\\| of each transition, [N].
    """

    loss: Tensor
    value: Tensor
    grad_norm: Tensor
    errors: Tensor


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
    *,
    sizes: Sequence[int],
    lr: float,
    weights: Tensor | None = None,
    activation: str = "relu",
    layer_norm: bool = False,
    double: bool = False,
    huber: bool = True,
    max_norm: float = math.inf,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> TdStepMetrics:
    """Take one step of Adam on the loss of DQN (Mnih et al. 2015): the mean of w · Huber(Q(s, a) − y).

    y = r + d · max Q_target(s′, ·), or r if s′ is terminal; with ``double``, the online network selects the action of
    s′ (van Hasselt et al. 2016).

    Args:
        parameters: float32 or float64 [P], contiguous, changed: for each layer its weight [outputs, inputs] and its
            bias; with ``layer_norm``, then the weight and the bias of the normalization of a hidden layer. This is the
            order of ``parameters()`` of modules.
        target: parameters of the target network, [P].
        moments, step: see :func:`policy_gradient_step`; Adam only.
        observations, next_observations: s and s′, [N, inputs].
        actions: int64 [N].
        returns, discounts: r and d, [N]: γ for targets of one step.
        terminated: bool [N]; the next state's values are not read there.
        sizes: the number of inputs, then the units of each layer; the last one has one output per action.
        lr: learning rate.
        weights: importance-sampling weights, [N]. None: all 1.
        activation: of hidden layers, ``relu`` or ``tanh``.
        layer_norm: normalize the outputs of hidden layers before the activation (Ba et al. 2016), with ε = 1e-5.
        double: double Q-learning.
        huber: the Huber loss; else the squared error.
        max_norm, betas, eps: see :func:`policy_gradient_step`.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device, size or number, an action that does not exist, or changed
            tensors that share memory.
    """
    transitions = observations, actions, returns, next_observations, terminated, discounts, weights
    network = sizes, activation, layer_norm, double, huber
    args: tuple[Any, ...] = (parameters, target, moments, step, *transitions, *network, max_norm, lr, betas, eps)
    if not runs_in_one_call(parameters):
        _check_td(*args)
        with torch.no_grad():
            metrics, errors = reference.td_step(*args)
        loss, value, norm = metrics.unbind()
        return TdStepMetrics(loss, value, norm, errors)
    try:
        relu = reference.ACTIVATIONS[activation] is torch.relu
        state = parameters.detach(), target.detach(), *moments, step
        numbers = max_norm, lr, *betas, eps
        metrics, errors = torch.ops.automl_ext.td_step.default(
            *state, *transitions, sizes, relu, layer_norm, double, huber, *numbers
        )
    except Exception:
        _check_td(*args)
        raise
    loss, value, norm = metrics.unbind()
    return TdStepMetrics(loss, value, norm, errors)


def runs_in_one_call(parameters: object) -> bool:
    """Return whether a kernel takes these parameters, or says what is wrong with them; else PyTorch takes the step."""
    return (
        isinstance(parameters, Tensor) and parameters.device.type in ("cpu", "meta") and _native.use_native(parameters)
    )


# ---- checks


def _tensor(op: str, name: str, x: object, dtype: torch.dtype, shape: tuple[int, ...], like: Tensor) -> None:
    if not isinstance(x, Tensor) or x.dtype != dtype or not is_dense(x):
        raise wrong_type(x, name, op, dtype)
    if x.device != like.device:
        raise wrong_device(x, name, op, like)
    if tuple(x.shape) != shape:
        raise ValueError(f"{op}: {name}: expected shape {shape}, got {tuple(x.shape)}")


def _sizes(op: str, name: str, sizes: object) -> list[int]:
    units = list(sizes) if isinstance(sizes, (list, tuple)) else None
    if units is None or not all(type(n) is int and 1 <= n < 2**24 for n in units):
        raise ValueError(f"{op}: {name}: expected a list of positive ints, got {shown(sizes)}")
    if not 2 <= len(units) - 1 <= MOST_LAYERS:
        raise ValueError(f"{op}: {name}: expected the inputs and the units of 2 to {MOST_LAYERS} layers, got {units}")
    return units


def _check_parameters(op: str, parameters: object, size: int) -> None:
    if not isinstance(parameters, Tensor) or parameters.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{op}: parameters: expected a float32 or float64 tensor, got {describe(parameters)}")
    if not is_dense(parameters) or parameters.ndim != 1 or not parameters.is_contiguous():
        raise ValueError(f"{op}: parameters: expected a contiguous vector, got {describe(parameters)}")
    if len(parameters) != size:
        raise ValueError(f"{op}: parameters: expected {size} numbers for the networks, got {len(parameters)}")


def _check_optimizer(
    op: str,
    parameters: Tensor,
    moments: object,
    step: object,
    max_norm: object,
    lr: object,
    betas: object,
    eps: object,
    rmsprop: bool,
) -> None:
    if not isinstance(moments, (tuple, list)) or len(moments) != 2:
        raise TypeError(f"{op}: moments: expected a pair of tensors, got {describe(moments)}")
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise TypeError(f"{op}: betas: expected a pair of numbers, got {describe(betas)}")
    changed = [parameters]
    for i, moment in enumerate(moments):
        if moment is None and i == 0 and rmsprop:
            continue
        _tensor(op, f"moments[{i}]", moment, parameters.dtype, tuple(parameters.shape), parameters)
        if not moment.is_contiguous():
            raise ValueError(f"{op}: moments[{i}]: expected a contiguous vector, got strides {moment.stride()}")
        changed.append(moment)
    if not isinstance(step, Tensor) or step.dtype != torch.float32 or step.ndim:
        raise TypeError(f"{op}: step: expected a float32 tensor without dimensions, got {describe(step)}")
    places = sorted((x.data_ptr(), x.data_ptr() + x.numel() * x.element_size()) for x in (*changed, step))
    if any(end > begin for (_, end), (begin, _) in pairwise(places)):
        raise ValueError(f"{op}: parameters, moments, step: expected tensors that share no memory")
    check_number(lr, "lr", op, 0.0, math.inf)
    for i, beta in enumerate(betas):
        if not 0 <= check_number(beta, f"betas[{i}]", op, 0.0, 1.0) < 1:
            raise ValueError(f"{op}: betas[{i}]: expected a number in [0, 1), got {shown(beta)}")
    check_number(eps, "eps", op, 0.0, math.inf)
    _check_bound(op, "max_norm", max_norm)


def _check_bound(op: str, name: str, value: Any, least: str = "positive") -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (value > 0 or (least != "positive" and value == 0)):
        raise ValueError(f"{op}: {name}: expected a {least} number, got {shown(value)}")


def _check_activation(op: str, activation: object) -> None:
    if activation not in reference.ACTIVATIONS:
        raise ValueError(f"{op}: activation: expected tanh or relu, got {shown(activation)}")


def _check_actions(op: str, actions: Tensor, count: int) -> None:
    if actions.device.type == "cpu" and (wrong := (actions < 0) | (actions >= count)).any():
        raise ValueError(f"{op}: actions: expected values in [0, {count}), got {int(actions[wrong][0])}")


def _check_networks(op: str, parameters: Any, actor: Any, critic: Any, gaussian: bool) -> tuple[int, int]:
    """Check the vector of two perceptrons; return the number of inputs, and that of the actor's outputs."""
    actor, critic = _sizes(op, "actor", actor), _sizes(op, "critic", critic)
    if critic[0] != actor[0] or critic[-1] != 1:
        raise ValueError(f"{op}: critic: expected {actor[0]} inputs and 1 output, got {critic}")
    size = actor[-1] * gaussian + reference.perceptron_size(actor) + reference.perceptron_size(critic)
    _check_parameters(op, parameters, size)
    return actor[0], actor[-1]


def _check_act(
    parameters: Any,
    observations: Any,
    noise: Any,
    masks: Any,
    actor: Any,
    critic: Any,
    activation: Any,
    gaussian: Any,
) -> None:
    """Raise the error for invalid arguments of :func:`policy_act`."""
    op = "policy_act"
    check_bool(gaussian, "gaussian", op)
    inputs, outputs = _check_networks(op, parameters, actor, critic, gaussian)
    if not isinstance(observations, Tensor) or observations.ndim != 2:
        raise ValueError(f"{op}: observations: expected shape [N, {inputs}], got {describe(observations)}")
    n = len(observations)
    _tensor(op, "observations", observations, parameters.dtype, (n, inputs), parameters)
    if noise is not None:
        _tensor(op, "noise", noise, parameters.dtype, (n, outputs) if gaussian else (n,), parameters)
    if masks is not None:
        if gaussian:
            raise ValueError(f"{op}: masks: expected None with a Gaussian policy")
        _tensor(op, "masks", masks, torch.bool, (n, outputs), parameters)
    _check_activation(op, activation)


def _check_policy(
    parameters: Any,
    moments: Any,
    step: Any,
    observations: Any,
    actions: Any,
    advantages: Any,
    returns: Any,
    rows: Any,
    masks: Any,
    old_log_probs: Any,
    old_values: Any,
    actor: Any,
    critic: Any,
    activation: Any,
    normalize: Any,
    losses: tuple[Any, ...],
    max_norm: Any,
    max_kl: Any,
    lr: Any,
    betas: Any,
    eps: Any,
) -> None:
    """Raise the error for invalid arguments of :func:`policy_gradient_step`."""
    op = "policy_gradient_step"
    gaussian = isinstance(actions, Tensor) and actions.is_floating_point()
    inputs, outputs = _check_networks(op, parameters, actor, critic, gaussian)
    dtype = parameters.dtype
    if not isinstance(observations, Tensor) or observations.ndim != 2:
        raise ValueError(f"{op}: observations: expected shape [N, {inputs}], got {describe(observations)}")
    n = len(observations)
    _tensor(op, "observations", observations, dtype, (n, inputs), parameters)
    for name, x in (("advantages", advantages), ("returns", returns)):
        _tensor(op, name, x, dtype, (n,), parameters)
    for name, x in (("old_log_probs", old_log_probs), ("old_values", old_values)):
        if x is not None:
            _tensor(op, name, x, dtype, (n,), parameters)
    if masks is not None:
        if gaussian:
            raise ValueError(f"{op}: masks: expected None with actions that are not integers")
        _tensor(op, "masks", masks, torch.bool, (n, outputs), parameters)
    if rows is not None:
        if not isinstance(rows, Tensor) or rows.dtype != torch.int64 or not is_dense(rows):
            raise wrong_type(rows, "rows", op, torch.int64)
        if rows.ndim != 1:
            raise ValueError(f"{op}: rows: expected a vector, got shape {tuple(rows.shape)}")
        if rows.device.type == "cpu" and (wrong := (rows < 0) | (rows >= n)).any():
            raise IndexError(f"{op}: rows: expected values in [0, {n}), got {int(rows[wrong][0])}")
    if (n if rows is None else len(rows)) == 0:
        raise ValueError(f"{op}: rows: expected at least one step, got none")
    if gaussian:
        _tensor(op, "actions", actions, dtype, (n, outputs), parameters)
    else:
        _tensor(op, "actions", actions, torch.int64, (n,), parameters)
        _check_actions(op, actions if rows is None else actions[rows], outputs)
    _check_activation(op, activation)
    check_bool(normalize, "normalize_advantages", op)
    for name, x in zip(("clip", "value_clip"), losses[:2], strict=True):
        _check_bound(op, name, x)
    for name, x in zip(("vf_coef", "ent_coef"), losses[2:], strict=True):
        check_number(x, name, op, -math.inf, math.inf)
    _check_bound(op, "max_kl", max_kl, "non-negative")
    _check_optimizer(op, parameters, moments, step, max_norm, lr, betas, eps, rmsprop=True)


def _check_td(
    parameters: Any,
    target: Any,
    moments: Any,
    step: Any,
    observations: Any,
    actions: Any,
    returns: Any,
    next_observations: Any,
    terminated: Any,
    discounts: Any,
    weights: Any,
    sizes: Any,
    activation: Any,
    layer_norm: Any,
    double: Any,
    huber: Any,
    max_norm: Any,
    lr: Any,
    betas: Any,
    eps: Any,
) -> None:
    """Raise the error for invalid arguments of :func:`td_step`."""
    op = "td_step"
    sizes = _sizes(op, "sizes", sizes)
    for name, flag in (("layer_norm", layer_norm), ("double", double), ("huber", huber)):
        check_bool(flag, name, op)
    _check_parameters(op, parameters, reference.perceptron_size(sizes, layer_norm))
    dtype = parameters.dtype
    if not isinstance(observations, Tensor) or observations.ndim != 2 or not len(observations):
        got = describe(observations)
        raise ValueError(f"{op}: observations: expected shape [N, {sizes[0]}] with N of at least 1, got {got}")
    n = len(observations)
    _tensor(op, "target", target, dtype, tuple(parameters.shape), parameters)
    for name, x in (("observations", observations), ("next_observations", next_observations)):
        _tensor(op, name, x, dtype, (n, sizes[0]), parameters)
    floats = (("returns", returns), ("discounts", discounts), *((("weights", weights),) if weights is not None else ()))
    for name, x in floats:
        _tensor(op, name, x, dtype, (n,), parameters)
    _tensor(op, "terminated", terminated, torch.bool, (n,), parameters)
    _tensor(op, "actions", actions, torch.int64, (n,), parameters)
    _check_actions(op, actions, sizes[-1])
    _check_activation(op, activation)
    _check_optimizer(op, parameters, moments, step, max_norm, lr, betas, eps, rmsprop=False)
