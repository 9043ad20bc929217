"""Self-imitation (Oh et al. 2018, https://arxiv.org/abs/1806.05635): imitate past actions that turned out well.

store finished episodes in a prioritized replay, with the return R that followed every action
``updates`` times after each update of the policy:
    sample transitions with priority (R − V(s))₊
    one step of the optimizer on  −(R − V(s))₊ log π(a|s) + ``value_weight`` · ½ (R − V(s))₊²        equations 1 to 3
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from automl_ext.rl.envs.rollouts import Rollout
from automl_ext.rl.envs.vector import Step
from automl_ext.rl.loop.checks import observation_bytes
from automl_ext.rl.networks.actor_critic import ActorCritic
from automl_ext.rl.networks.parameters import clip_norm
from automl_ext.rl.replay.prioritized import PrioritizedReplay
from automl_ext.training.errors import UserError
from automl_ext.training.machine.device import choose_device
from automl_ext.training.machine.memory import check_memory

CAPACITY = 100_000  # transitions
LONGEST = 100_000  # steps; returns of longer episodes are cut here
ALPHA, BETA = 0.6, 0.1
CLIP = 1.0  # of (R − V)₊
VALUE_WEIGHT = 0.01


class Taken(NamedTuple):
    """One step of one environment in a running episode."""

    observation: Tensor
    action: Tensor
    reward: Tensor


class SelfImitation:
    """The replay of an agent's finished episodes, and the updates from it.

    A truncated episode counts as ended: R is the sum of the discounted rewards that were received.

    Args:
        network: policy and value function.
        parameters: all parameters of the network as one vector.
        optimizer: optimizer of ``parameters``; the one of the agent.
        spaces: observation space and action space.
        n_envs: number of environments.
        gamma: discount factor.
        max_grad_norm: gradient norm to clip at.
        updates: gradient steps per call of :meth:`update`.
        batch_size: transitions per gradient step.
        seed: seed of the sampling.

    Raises:
        UserError: the replay does not fit into memory.
    """

    def __init__(
        self,
        network: ActorCritic,
        parameters: torch.nn.Parameter,
        optimizer: torch.optim.Optimizer,
        spaces: tuple[gymnasium.Space, gymnasium.Space],
        n_envs: int,
        *,
        gamma: float,
        max_grad_norm: float,
        updates: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.network, self.parameters, self.optimizer = network, parameters, optimizer
        self.max_grad_norm, self.updates, self.batch_size = max_grad_norm, updates, batch_size
        check_memory("self_imitation", CAPACITY * (observation_bytes(spaces[0]) + 42))
        discrete = isinstance(spaces[1], gymnasium.spaces.Discrete)
        self.replay = PrioritizedReplay(
            max(CAPACITY, n_envs),
            spaces[0].shape or (),
            spaces[0].dtype,
            () if discrete else (math.prod(spaces[1].shape or ()),),  # sampled actions are flat
            np.int64 if discrete else np.float32,
            n_envs=n_envs,
            n_step=LONGEST,
            gamma=gamma,
            alpha=ALPHA,
            beta=BETA,
            generator=np.random.default_rng(seed),
            device=choose_device(str(parameters.device)),
        )
        self.running: list[list[Taken]] = [[] for _ in range(n_envs)]

    def add(self, rollout: Rollout) -> None:
        """Store the episodes that end in a rollout of the agent."""
        shape = rollout.rewards.shape
        acted = len(rollout.actions)
        columns = [rollout.observations[:acted], rollout.actions, rollout.rewards.flatten()]
        observations, actions, rewards = (x.cpu().unflatten(0, shape) for x in columns)
        done, valid = (rollout.terminated | rollout.truncated).cpu(), rollout.valid.cpu()
        for t in range(shape[0]):
            for b in valid[t].nonzero().flatten().tolist():
                self.running[b].append(Taken(observations[t, b], actions[t, b], rewards[t, b]))
            ended = (done[t] & valid[t]).nonzero().flatten().tolist()
            if ended:
                self._store(ended)

    def cut(self) -> None:
        """Forget the running episodes. Call it after environments are reset from outside."""
        self.running = [[] for _ in self.running]

    def update(self) -> dict[str, Any]:
        """Take ``updates`` gradient steps; return scalar metrics. Do nothing before a whole batch is stored."""
        if len(self.replay) < self.batch_size:
            return {}
        losses, means = [], []
        gradient = self.parameters.grad
        assert gradient is not None
        for _ in range(self.updates):
            batch = self.replay.sample(self.batch_size)
            outputs, values = self.network(batch.observations)
            log_probs = self.network.distribution.log_probs(outputs, batch.actions)
            loss, gains = imitation_loss(log_probs, values, batch.returns, batch.weights)
            gradient.zero_()
            loss.backward()
            clip_norm(gradient, self.max_grad_norm)
            self.optimizer.step()
            try:
                self.replay.update_priorities(batch.indices, gains)
            except ValueError as error:
                raise UserError(f"self_imitation: diverged: {error}") from None
            losses.append(loss.detach())
            means.append(gains.mean())
        return {"imitation_loss": torch.stack(losses).mean(), "imitation_gain": torch.stack(means).mean()}

    def state_dict(self) -> dict[str, Any]:
        return {"replay": self.replay.state_dict(), "running": [[tuple(x) for x in steps] for steps in self.running]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.replay.load_state_dict(state["replay"])
        self.running = [[Taken(*x) for x in steps] for steps in state["running"]]

    def _store(self, ended: list[int]) -> None:
        """Move the finished episodes of these environments to the replay; each ``add`` takes step t of all of them."""
        lengths = np.zeros(len(self.running), np.int64)
        columns = [torch.from_numpy(x) for x in self._blank(max(len(self.running[b]) for b in ended))]
        for b in ended:
            lengths[b] = length = len(self.running[b])
            for column, values in zip(columns, zip(*self.running[b], strict=True), strict=True):
                column[:length, b] = torch.stack(values)
            columns[0][length:, b] = columns[0][length - 1, b]  # a placeholder; R needs no final observation
            self.running[b] = []
        observations, actions, rewards = (x.numpy() for x in columns)
        never = np.zeros(len(lengths), bool)
        for t in range(len(rewards)):
            valid, last = np.less(t, lengths), np.equal(t, lengths - 1)
            self.replay.add(Step(observations[t], actions[t], rewards[t], observations[t + 1], last, never, valid))

    def _blank(self, length: int) -> list[np.ndarray]:
        """Return zeros for observations [length + 1, B, ...], actions and rewards [length, B, ...]."""
        taken = next(steps[0] for steps in self.running if steps)
        n_envs = len(self.running)
        shapes = [(length + (x is taken.observation), n_envs, *x.shape) for x in taken]
        return [np.zeros(shape, x.numpy().dtype) for shape, x in zip(shapes, taken, strict=True)]


def imitation_loss(
    log_probs: Tensor, values: Tensor, returns: Tensor, weights: Tensor, clip: float = CLIP
) -> tuple[Tensor, Tensor]:
    """Compute the loss of self-imitation.

    Args:
        log_probs: log π(a|s), [N].
        values: V(s), [N].
        returns: R, [N], constants.
        weights: importance weights, [N].
        clip: largest (R − V)₊ in the policy's term, and largest gradient of the value's term.

    Returns:
        The weighted mean loss, and (R − V)₊ without clipping, detached [N].
    """
    gains = (returns - values).clamp(min=0)
    policy = -gains.detach().clamp(max=clip) * log_probs
    value = F.huber_loss(gains, torch.zeros_like(gains), reduction="none", delta=clip)
    return (weights * (policy + VALUE_WEIGHT * value)).mean(), gains.detach()
