"""The choice between a training step in one call and the step of the algorithm's file. Only this file chooses.

The step in one call is taken only if it is the same step: the agent's loss is that of its algorithm, its networks and
its optimizer are ours, all parameters are trained, and no hook or term would be left out. Everything else takes the
step that stands in the algorithm's file, with the same result up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.ops.networks import FusedMLP
from automl_ext.ops.steps import (
    MOST_LAYERS,
    PolicyStepMetrics,
    TdStepMetrics,
    policy_gradient_step,
    runs_in_one_call,
    td_step,
)
from automl_ext.rl.networks.actor_critic import ActorCritic
from automl_ext.rl.networks.body import Body
from automl_ext.rl.networks.distributions import Categorical, DiagonalGaussian
from automl_ext.rl.networks.parameters import FlatAdam, FlatRMSprop
from automl_ext.rl.networks.q_network import DuelingHead, QNetwork

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
LAYER_NORM_EPS = 1e-5  # of the op


class FusedPolicy:
    """Steps of :func:`~automl_ext.ops.steps.policy_gradient_step` for an agent with an :class:`ActorCritic`.

    Args:
        optimizer: whose state the steps change.
        parameters: the vector of all parameters of the network.
    """

    def __init__(self, network: ActorCritic, optimizer: torch.optim.Optimizer, parameters: Tensor) -> None:
        self.network, self.optimizer, self.parameters = network, optimizer, parameters
        self.actor, self.critic = sizes_of(network.actor), sizes_of(network.critic)
        self.moments, self.taken = state_of(optimizer, parameters)

    def inputs(self, observations: Tensor) -> dict[str, Tensor | None]:
        """Return the perceptrons' inputs and the masks of observations [N, ...], for all steps on them."""
        with torch.no_grad():
            masked = self.network.masked
            features = self.network.body(observations)
            return {"observations": features, "masks": None if masked is None else masked.mask(observations)}

    def step(self, max_norm: float, **arguments: Any) -> PolicyStepMetrics:
        """Take a step. Arguments: those of ``policy_gradient_step``, and of :meth:`inputs`."""
        group = self.optimizer.param_groups[0]
        betas = group["betas"] if "betas" in group else (0.0, group["alpha"])
        return policy_gradient_step(
            self.parameters,
            self.moments,
            self.taken,
            **arguments,
            actor=self.actor,
            critic=self.critic,
            activation=self.network.actor.activation,
            lr=group["lr"],
            betas=betas,
            eps=group["eps"],
            max_norm=max_norm,
        )


def fused_policy(agent: Any, own: type, methods: Sequence[str]) -> FusedPolicy | None:
    """Return the steps in one call for a policy-gradient agent, or None if it has to take those of its own.

    Args:
        own: the class of the algorithm.
        methods: its methods that a step in one call stands for.
    """
    network = agent.network
    actor, critic = getattr(network, "actor", None), getattr(network, "critic", None)
    same = (
        unchanged(agent, own, methods)
        and not agent.seams.terms
        and type(network) is ActorCritic
        and unchanged(network, ActorCritic, ("forward", "allowed", "policy", "values", "scaled", "saw_returns"))
        and type(actor) is FusedMLP
        and type(critic) is FusedMLP
        and actor.activation == critic.activation
        and actor.activation in ("tanh", "relu")
        and type(network.distribution) in (Categorical, DiagonalGaussian)
        and type(network.body) is Body
        and few(sizes_of(actor))
        and trains(agent, network, (FlatAdam, FlatRMSprop))
    )
    return FusedPolicy(network, agent.optimizer, agent.parameters) if same else None


class FusedQ:
    """Steps of :func:`~automl_ext.ops.steps.td_step` for an agent with a :class:`QNetwork`."""

    def __init__(self, agent: Any, sizes: list[int], layer_norm: bool) -> None:
        self.agent, self.sizes, self.layer_norm = agent, sizes, layer_norm
        (average, square), self.taken = state_of(agent.optimizer, agent.parameters)
        assert average is not None  # Adam
        self.moments = average, square

    def step(self, batch: Any) -> TdStepMetrics:
        """Take a step on a :class:`~automl_ext.rl.replay.uniform.Batch`."""
        agent, config, group = self.agent, self.agent.config, self.agent.optimizer.param_groups[0]
        seen, later = batch.observations, batch.next_observations
        if not self.layer_norm:  # the body has no layers: it only normalizes
            with torch.no_grad():
                seen, later = agent.online.body(seen), agent.online.body(later)
        return td_step(
            agent.parameters,
            agent._target_parameters,
            self.moments,
            self.taken,
            seen,
            batch.actions,
            batch.returns,
            later,
            batch.terminated,
            batch.discounts,
            sizes=self.sizes,
            lr=group["lr"],
            weights=batch.weights if config.prioritized else None,
            layer_norm=self.layer_norm,
            double=config.double,
            max_norm=config.max_grad_norm,
            betas=group["betas"],
            eps=group["eps"],
        )


def fused_q(agent: Any, own: type, methods: Sequence[str]) -> FusedQ | None:
    """Return the steps in one call for an agent of Q-learning, or None. See :func:`fused_policy`."""
    network, seams = agent.online, agent.seams
    same = (
        unchanged(agent, own, methods)
        and not (seams.terms or seams.batch or seams.merge)
        and type(network) is QNetwork
        and unchanged(network, QNetwork, ("forward", "q"))
        and type(agent.target) is QNetwork
        and unchanged(agent.target, QNetwork, ("forward", "q"))
        and parameters_of(agent.target) is not None
        and network.masked is None
        and network.atoms is None
        and type(network.body) is Body
        and network.body.dtype == torch.float32
        and not network.body.images
        and trains(agent, network, (FlatAdam,))
    )
    if not same:
        return None
    if type(network.head) is FusedMLP:
        sizes = sizes_of(network.head)
        return FusedQ(agent, sizes, False) if network.head.activation == "relu" and few(sizes) else None
    return fused_normalized_q(agent)


def fused_normalized_q(agent: Any) -> FusedQ | None:
    """Return the steps in one call for a network with layer normalization, whose input is the observation itself."""
    network = agent.online
    body, head = network.body, network.head
    if type(head) is not DuelingHead or head.value is not None or body.norm is not None or body.scale != 1:
        return None
    if agent.envs.observation_space.dtype.name != "float32":
        return None
    layers = [*body, head.hidden, head.layer_norm, nn.ReLU(), head.advantage]
    hidden = [nn.Linear, nn.LayerNorm, nn.ReLU] * (len(layers) // 3)
    if [type(layer) for layer in layers] != [*hidden, nn.Linear]:
        return None
    if any(layer.eps != LAYER_NORM_EPS for layer in layers[1::3]):
        return None
    sizes = [layers[0].in_features, *(layer.out_features for layer in layers[::3])]
    return FusedQ(agent, sizes, True) if few(sizes) else None


# ---- what must hold


def unchanged(of: Any, own: type, methods: Sequence[str]) -> bool:
    """Return whether an object has the methods of its own class, and no others."""
    kind, attributes = type(of), vars(of)
    return all(getattr(kind, name) is getattr(own, name) and name not in attributes for name in methods)


def parameters_of(network: nn.Module) -> list[nn.Parameter] | None:
    """Return the parameters in the order of ``network.parameters()``, in less time; None if a module has a hook."""
    parameters: list[nn.Parameter] = []
    modules = [network]
    while modules:
        inside = modules.pop().__dict__
        if any(inside[name] for name in HOOKS):
            return None
        parameters += [p for p in inside["_parameters"].values() if p is not None]
        modules += [module for module in reversed(inside["_modules"].values()) if module is not None]
    return parameters


def trains(agent: Any, network: nn.Module, optimizers: Sequence[type]) -> bool:
    """Return whether the agent trains all parameters of the network, as one vector on the CPU, by one of ours."""
    flat, optimizer = agent.parameters, agent.optimizer
    if flat.device.type != "cpu" or flat.dtype not in (torch.float32, torch.float64) or flat.grad is None:
        return False
    if not runs_in_one_call(flat) or torch.is_autocast_enabled("cpu"):
        return False
    groups = optimizer.param_groups
    ours = type(optimizer) in optimizers and len(groups) == 1 and len(groups[0]["params"]) == 1
    if not ours or groups[0]["params"][0] is not flat or "step" in vars(optimizer):
        return False
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return False
    at = flat.data_ptr()
    for p in parameters_of(network) or ():
        if not p.requires_grad or p.data_ptr() != at or not p.is_contiguous() or p._backward_hooks:
            return False
        at += p.numel() * p.element_size()
    return at == flat.data_ptr() + flat.numel() * flat.element_size()


def few(sizes: Sequence[int]) -> bool:
    """Return whether the ops take a perceptron with as many layers."""
    return 2 <= len(sizes) - 1 <= MOST_LAYERS


def sizes_of(network: nn.Sequential) -> list[int]:
    """Return the number of inputs of a perceptron, and the units of its layers."""
    layers = [module for module in network if isinstance(module, nn.Linear)]
    return [layers[0].in_features, *(layer.out_features for layer in layers)]


def state_of(optimizer: torch.optim.Optimizer, parameters: Tensor) -> tuple[tuple[Tensor | None, Tensor], Tensor]:
    """Return the moments of an optimizer, and the number of its steps. A new optimizer gets a state of zeros."""
    state = optimizer.state[parameters]
    adam = isinstance(optimizer, torch.optim.Adam)
    names = ["exp_avg", "exp_avg_sq"] if adam else ["square_avg"]
    if not state:
        state["step"] = torch.zeros(())
        for name in names:
            state[name] = torch.zeros_like(parameters, requires_grad=False)
    *average, square = (state[name] for name in names)
    return (average[0] if average else None, square), state["step"]
