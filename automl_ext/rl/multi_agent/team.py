"""Q-learning of a team: the joint steps of its agents, the networks and the gradient step."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.rl.envs.vector import Step
from automl_ext.rl.networks.body import Body
from automl_ext.rl.networks.groups import GroupedBox
from automl_ext.rl.networks.parameters import clipped_gradient, flatten_parameters
from automl_ext.rl.replay.uniform import UniformReplay
from automl_ext.training.errors import UserError
from automl_ext.training.optimizer_state import load_optimizer


def team_step(step: Step, agents: int) -> Step:
    """Convert a step of the lanes, [C · A, ...], to a step of the copies: [C, A, ...], with the mean of the rewards.

    Raises:
        UserError: the agents of a copy do not end their episode together.
    """
    terminated, truncated = (x.reshape(-1, agents) for x in (step.terminated, step.truncated))
    if (terminated != terminated[:, :1]).any() or (truncated != truncated[:, :1]).any():
        raise UserError("team: expected an environment whose agents all end in the same step")
    observations, actions, next_observations = (
        x.reshape(-1, agents, *x.shape[1:]) for x in (step.observations, step.actions, step.next_observations)
    )
    rewards = step.rewards.reshape(-1, agents).mean(1)
    ends = terminated[:, 0], truncated[:, 0]
    return Step(observations, actions, rewards, next_observations, *ends, np.ones(len(rewards), bool))


class TeamNetwork(nn.Module):
    """Q_i(o_i, ·) of every agent, with shared weights, and the mixing function.

    Args:
        space: observation space of an agent, a vector.
        actions: number of actions.
        hidden: sizes of the hidden layers.
        mixer: maps the agents' values [N, A] and the state [N, S] to the value of the team [N].
    """

    def __init__(self, space: GroupedBox, actions: int, hidden: tuple[int, ...], mixer: nn.Module) -> None:
        super().__init__()
        self.own = space.own
        self.body = Body(space, hidden, nn.ReLU)
        self.head = nn.Linear(self.body.features, actions)
        self.mixer = mixer

    def forward(self, observations: Tensor) -> Tensor:
        """Compute Q_i [..., actions] of observations [..., L]."""
        q: Tensor = self.head(self.body(observations.flatten(0, -2))).unflatten(0, observations.shape[:-1])
        return q

    def total(self, values: Tensor, observations: Tensor) -> Tensor:
        """Mix values [N, A]. The state is that of all agents' observations [N, A, L], without their one-hot vectors."""
        mixed: Tensor = self.mixer(values, observations[..., : self.own].flatten(1))
        return mixed


class TeamLearner:
    """The networks of a team, their target networks and the optimizer.

    Attributes:
        online, target: the networks.
        updates: number of gradient steps so far.
    """

    def __init__(self, network: TeamNetwork, lr: float, max_grad_norm: float, target_update_interval: int) -> None:
        self.online, self.target = network, copy.deepcopy(network).requires_grad_(False)
        self.max_grad_norm, self.target_update_interval = max_grad_norm, target_update_interval
        self._weights, self._target_weights = flatten_parameters(self.online), flatten_parameters(self.target)
        self.optimizer = torch.optim.Adam([self._weights], lr, fused=True)
        self.updates = 0

    def update(self, replay: UniformReplay, batch_size: int) -> Tensor:
        """Take one gradient step on (y − Q_tot(s, a))²; return the loss, 0-dim.

        y = r + γ Q_tot_target(s′, argmax Q_i(o′_i, ·)); the online networks choose the actions (double Q-learning).
        """
        if self.updates % self.target_update_interval == 0:
            self._target_weights.data.copy_(self._weights.data)
        batch = replay.sample(batch_size)
        with torch.no_grad():
            best = self.online(batch.next_observations).argmax(2, keepdim=True)
            values = self.target(batch.next_observations).gather(2, best).squeeze(2)
            targets = batch.returns + batch.discounts * self.target.total(values, batch.next_observations)
        chosen = self.online(batch.observations).gather(2, batch.actions.unsqueeze(2)).squeeze(2)
        loss = F.mse_loss(self.online.total(chosen, batch.observations), targets)
        clipped_gradient(loss, self._weights, self.max_grad_norm)
        self.optimizer.step()
        self.updates += 1
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        networks = {"online": self.online.state_dict(), "target": self.target.state_dict()}
        return {**networks, "optimizer": self.optimizer.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.updates = state["updates"]
