"""The layout and the weights of an agent's policy, for :class:`~automl_ext.rl.export.network.PolicyNetwork`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.rl.actor_critic.a3c import A3C
from automl_ext.rl.actor_critic.policy_gradient import PolicyGradientAgent
from automl_ext.rl.dqn.agent import DQN
from automl_ext.rl.export.network import PolicyNetwork
from automl_ext.rl.imitation.bc import BC
from automl_ext.rl.loop.learning import LearningAgent
from automl_ext.rl.networks.actor_critic import TwinBodies, TwinMLP
from automl_ext.rl.networks.body import Body, RunningNorm
from automl_ext.rl.networks.distributions import Categorical
from automl_ext.rl.networks.encoders import ChannelsFirst, Residual
from automl_ext.rl.networks.grouped import GroupedActorCritic
from automl_ext.rl.networks.q_network import NoisyLinear, QNetwork
from automl_ext.rl.offline.cql import CQL
from automl_ext.rl.offline.iql import IQL
from automl_ext.training.errors import UserError

Part = tuple[list[Any], nn.Module]  # (layer of a layout, the module whose weights it has)


def policy_network(agent: LearningAgent) -> PolicyNetwork:
    """Return the policy of an agent as a network with the same weights, on the CPU, in evaluation mode.

    Raises:
        UserError: the agent is of another algorithm, has an encoder that was passed in, or its network has parts for
            each of several agents or tasks.
    """
    if isinstance(agent, A3C):
        agent = agent.learner
    if isinstance(agent, (PolicyGradientAgent, BC, IQL)):
        network = _actor_critic(agent)
    elif isinstance(agent, (DQN, CQL)):
        network = _q_network(agent)
    else:
        raise UserError(
            f"export: a policy of {agent.algorithm} cannot be exported; "
            "export takes dqn, rainbow, a2c, a3c, ppo, reinforce, bc, cql and iql"
        )
    return network.cpu().eval()


def _actor_critic(agent: PolicyGradientAgent | BC | IQL) -> PolicyNetwork:
    network, distribution = agent.network, agent.network.distribution
    if isinstance(network, GroupedActorCritic):
        raise UserError("export: networks with central_critic, separate or popart cannot be exported")
    body, heads = network.body, (network.policy_head, network.value_head)
    shared: list[Part] = []
    if isinstance(body, TwinMLP):
        policy, value = (_twin(body, i) for i in range(2))
    elif isinstance(body, TwinBodies):
        policy, value = _parts(body.policy), _parts(body.value)
    else:
        shared, policy, value = _parts(body), [], []
    policy, value = policy + _parts([heads[0]]), value + _parts([heads[1]])
    buffers: dict[str, Tensor] = {}
    if isinstance(distribution, Categorical):
        actions: dict[str, Any] = {"kind": "logits", "actions": [distribution.outputs, distribution.start]}
    else:
        box = distribution.scaling
        actions = {"kind": "mean", "actions": [int(n) for n in box.shape], "dtype": str(box.dtype)}
        bounds = {"middle": box.middle, "radius": box.half, "low": box.low, "high": box.high}
        buffers = {name: torch.tensor(bound, dtype=torch.float64) for name, bound in bounds.items()}
    return _build(agent, body, {"shared": shared, "policy": policy, "value": value}, actions, buffers)


def _q_network(agent: DQN | CQL) -> PolicyNetwork:
    network = agent.learner.online
    shared, policy, value = _parts(network.body), _parts([network.advantage]), []
    streams = [[layer, *norm, nn.ReLU()] for layer, norm in _streams(network)]
    if network.value is None:
        shared += _parts(streams[0])
    else:
        policy = _parts(streams[1]) + policy
        value = _parts([*streams[0], network.value])
    actions = {"kind": "q", "actions": [agent.actions, agent._first], "atoms": network.atoms}
    buffers = {"support": network.support} if network.atoms else {}
    return _build(agent, network.body, {"shared": shared, "policy": policy, "value": value}, actions, buffers)


def _streams(network: QNetwork) -> list[tuple[nn.Linear, list[nn.LayerNorm]]]:
    """Return the last hidden layer and its normalization, if any; one pair per stream: of the value, the advantages."""
    hidden, norm = _linear(network.hidden), network.layer_norm
    n = 1 if network.value is None else 2
    layers = [_as_linear(*part) for part in zip(hidden.weight.chunk(n), hidden.bias.chunk(n), strict=True)]
    if norm is None:
        return [(layer, []) for layer in layers]
    norms = [_as_layer_norm(*part) for part in zip(norm.weight.chunk(n), norm.bias.chunk(n), strict=True)]
    return [(layer, [norm]) for layer, norm in zip(layers, norms, strict=True)]


def _build(
    agent: LearningAgent,
    body: TwinMLP | TwinBodies | Body,
    parts: dict[str, list[Part]],
    actions: dict[str, Any],
    buffers: dict[str, Tensor],
) -> PolicyNetwork:
    layout: dict[str, Any] = {
        "observation": [int(n) for n in agent.spaces[0].shape or ()],
        "scale": body.scale if isinstance(body, Body) else 1.0,
        "normalize": isinstance(body.norm, RunningNorm),
        "channels_last": isinstance(body, Body) and any(isinstance(layer, ChannelsFirst) for layer in body),
        **{name: [layer for layer, _ in part] for name, part in parts.items()},
        "atoms": None,
        **actions,
    }
    if isinstance(body.norm, RunningNorm):
        layout["clip"] = float(body.norm.clip)
        buffers |= {"shift": body.norm.shift, "factor": body.norm.scale}
    network = PolicyNetwork(layout)
    weights = dict(buffers)
    for name, part in parts.items():
        for i, (_, module) in enumerate(part):
            weights |= {f"{name}.{i}.{key}": value for key, value in module.state_dict().items()}
    network.load_state_dict({name: value.detach().cpu().clone() for name, value in weights.items()})
    return network


def _parts(layers: Iterable[nn.Module]) -> list[Part]:
    """Return the layers of a body or head. The layout stores normalization and the order of channels separately."""
    found: list[Part] = []
    for layer in layers:
        if isinstance(layer, (RunningNorm, ChannelsFirst)):
            continue
        if isinstance(layer, nn.Conv2d):
            sizes = layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.stride[0], layer.padding[0]
            found.append((["conv", *sizes], layer))
        elif isinstance(layer, nn.MaxPool2d):
            found.append((["max_pool", layer.kernel_size, layer.stride, layer.padding], layer))
        elif isinstance(layer, Residual):
            found.append((["residual", layer.first.in_channels], layer))
        elif isinstance(layer, nn.LayerNorm):
            found.append((["layer_norm", *layer.normalized_shape], layer))
        elif isinstance(layer, nn.Flatten):
            found.append((["flatten"], layer))
        elif isinstance(layer, (nn.ReLU, nn.Tanh)):
            found.append((["relu" if isinstance(layer, nn.ReLU) else "tanh"], layer))
        elif isinstance(layer, (nn.Linear, NoisyLinear)):
            linear = _linear(layer)
            found.append((["linear", linear.in_features, linear.out_features], linear))
        else:
            raise UserError(f"export: an encoder that was passed in, {type(layer).__name__}, cannot be exported")
    return found


def _twin(body: TwinMLP, i: int) -> list[Part]:
    """Return the layers of one of the two networks of a :class:`TwinMLP`."""
    layers: list[nn.Module] = []
    for weight, bias in zip(body.weights, body.biases, strict=True):
        layers += [_as_linear(weight[i].t(), bias[i, 0]), nn.Tanh()]
    return _parts(layers)


def _linear(layer: Any) -> nn.Linear:
    """Return a linear layer, or a noisy one without its noise, as ``nn.Linear``."""
    return layer if type(layer) is nn.Linear else _as_linear(layer.weight, layer.bias)


def _as_linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
    return linear


def _as_layer_norm(weight: Tensor, bias: Tensor) -> nn.LayerNorm:
    norm = nn.LayerNorm(len(weight))
    norm.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
    return norm
