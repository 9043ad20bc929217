"""The choice between calls that do a whole step and the steps of the algorithm's file. Only this file chooses.

The training step in one call is taken only if it is the same step: the agent's loss is that of its algorithm, its
networks and its optimizer are ours, all parameters are trained, and no hook or term would be left out. Everything else
takes the step that stands in the algorithm's file, with the same result up to rounding. The same holds for acting: the
call draws other random numbers from the same generator, so the actions are other samples of the same policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.ops.networks import FusedMLP
from automl_ext.ops.steps import MOST_LAYERS, runs_in_one_call
from automl_ext.rl.networks.actor_critic import ActorCritic
from automl_ext.rl.networks.body import Body
from automl_ext.rl.networks.distributions import Categorical, DiagonalGaussian
from automl_ext.rl.networks.parameters import FlatAdam, FlatRMSprop
from automl_ext.rl.networks.q_network import DuelingHead, QNetwork

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
LAYER_NORM_EPS = 1e-5  # of the op


class FusedPolicy:
    """Acting and training steps in one call for an agent with an :class:`ActorCritic`.

    They call the ops of :func:`~automl_ext.ops.steps.policy_act` and
    :func:`~automl_ext.ops.steps.policy_gradient_step` themselves: with small networks, the checks of the arguments
    would take as long as a tenth of a rollout.

    Args:
        optimizer: whose state the steps change.
        parameters: the vector of all parameters of the network.
        acts: whether :meth:`act` with :meth:`noise` acts as the agent does.
    """

    def __init__(self, network: ActorCritic, optimizer: torch.optim.Optimizer, parameters: Tensor, acts: bool) -> None:
        self.network, self.optimizer, self.parameters, self.acts = network, optimizer, parameters.detach(), acts
        self.sizes = sizes_of(network.actor), sizes_of(network.critic)
        self.relu = network.actor.activation == "relu"
        self.gaussian = type(network.distribution) is DiagonalGaussian
        self.plain = not len(network.body) and network.body.scale == 1  # the inputs are the observations
        self.moments, self.taken = state_of(optimizer, parameters)

    def noise(self, n_steps: int, n_envs: int, rng: torch.Generator) -> Sequence[Tensor]:
        """Draw the random numbers of ``n_steps`` calls of :meth:`act`."""
        shape = (n_steps, n_envs, self.sizes[0][-1]) if self.gaussian else (n_steps, n_envs)
        draw = torch.randn if self.gaussian else torch.rand
        return draw(shape, generator=rng, dtype=self.parameters.dtype).unbind()

    def act(self, observations: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Choose actions for observations [N, ...]; return actions, log π(a|s) and V(s)."""
        features, masks = self.inputs(observations)
        chosen: tuple[Tensor, Tensor, Tensor] = torch.ops.automl_ext.policy_act.default(
            self.parameters, features, masks, noise, *self.sizes, self.relu, self.gaussian
        )
        return chosen

    def inputs(self, observations: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the perceptrons' inputs and the masks of observations [N, ...], for all calls on them."""
        if self.plain and observations.dtype == self.parameters.dtype:
            return observations, None
        with torch.no_grad():
            masked = self.network.masked
            return self.network.body(observations), None if masked is None else masked.mask(observations)

    def steps(
        self,
        observations: Tensor,
        actions: Tensor,
        advantages: Tensor,
        returns: Tensor,
        old_log_probs: Tensor | None = None,
        old_values: Tensor | None = None,
        *,
        normalize_advantages: bool,
        vf_coef: float,
        ent_coef: float,
        max_norm: float,
        clip: float = 0.2,
        value_clip: float = math.inf,
    ) -> Callable[..., Tensor]:
        """Return ``step(rows=None, max_kl=inf)``, which learns from rows of these arrays, [N, ...] each.

        Its result are the numbers of :class:`~automl_ext.ops.steps.PolicyStepMetrics` in one tensor, [6].
        """
        group = self.optimizer.param_groups[0]
        betas = group["betas"] if "betas" in group else (0.0, group["alpha"])
        state = self.parameters, *self.moments, self.taken
        features, masks = self.inputs(observations)
        arrays = features, actions, masks, old_log_probs, old_values, advantages, returns
        losses = normalize_advantages, clip, value_clip, vf_coef, ent_coef, max_norm
        numbers = group["lr"], *betas, group["eps"]

        def step(rows: Tensor | None = None, max_kl: float = math.inf) -> Tensor:
            metrics: Tensor = torch.ops.automl_ext.policy_gradient_step.default(
                *state, *arrays, rows, *self.sizes, self.relu, *losses, max_kl, *numbers
            )
            return metrics

        return step


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
    if not same:
        return None
    acts = unchanged(agent, own, ("rollout", "sample", "outputs"))
    return FusedPolicy(network, agent.optimizer, agent.parameters, acts)


class FusedQ:
    """Steps of :func:`~automl_ext.ops.steps.td_step` for an agent with a :class:`QNetwork`."""

    def __init__(self, agent: Any, sizes: list[int], layer_norm: bool) -> None:
        self.agent, self.sizes, self.layer_norm = agent, sizes, layer_norm
        self.parameters, self.target = agent.parameters.detach(), agent._target_parameters.detach()
        (average, square), self.taken = state_of(agent.optimizer, agent.parameters)
        assert average is not None  # Adam
        self.moments = average, square

    def step(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Take a step on a :class:`~automl_ext.rl.replay.uniform.Batch`; return the loss and the errors [N]."""
        agent, config, group = self.agent, self.agent.config, self.agent.optimizer.param_groups[0]
        seen, later = batch.observations, batch.next_observations
        if not self.layer_norm:  # the body has no layers: it only normalizes
            with torch.no_grad():
                seen, later = agent.online.body(seen), agent.online.body(later)
        metrics, errors = torch.ops.automl_ext.td_step.default(
            self.parameters,
            self.target,
            *self.moments,
            self.taken,
            seen,
            batch.actions,
            batch.returns,
            later,
            batch.terminated,
            batch.discounts,
            batch.weights if config.prioritized else None,
            self.sizes,
            True,
            self.layer_norm,
            config.double,
            True,
            config.max_grad_norm,
            group["lr"],
            *group["betas"],
            group["eps"],
        )
        return metrics[0], errors


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
