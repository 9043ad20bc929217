"""Self-imitation (Oh et al. 2018, https://arxiv.org/abs/1806.05635): imitate past actions that turned out well.

store finished episodes in a prioritized replay, with the return R that followed every action
``updates`` times after each update of the policy:
    sample transitions with priority (R − V(s))₊
    one step of the optimizer on  −(R − V(s))₊ log π(a|s) + ``VALUE_WEIGHT`` · ½ (R − V(s))₊²        equations 1 to 3
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tyro.conf import arg

from automl_ext.ops.returns import discounted_returns
from automl_ext.rl.envs.packed import observation_bytes
from automl_ext.rl.envs.rollouts import Rollout
from automl_ext.rl.extras.requirements import check_options, has_replay
from automl_ext.rl.loop.seams import Seam
from automl_ext.rl.networks.parameters import clipped_gradient
from automl_ext.rl.replay.episodes import RecordedEpisode, fill
from automl_ext.rl.replay.prioritized import PrioritizedReplay
from automl_ext.training.errors import UserError
from automl_ext.training.machine.memory import check_memory
from automl_ext.training.seeding import derived_seed

CAPACITY = 100_000  # transitions
ALPHA, BETA = 0.6, 0.1
CLIP = 1.0  # of (R − V)₊
VALUE_WEIGHT = 0.01
Taken = tuple[Tensor, Tensor, Tensor]  # observation, action and reward of a step


@dataclass
class SelfImitation:
    """Imitation of an on-policy agent's own past actions that turned out better than V predicts.

    Attaching it raises UserError for an agent that learns from a replay, for one that divides rewards by a running
    standard deviation (returns of the past would then have another scale than V), or if its replay does not fit into
    memory.
    """

    name: ClassVar[str] = "self-imitation"
    seams: ClassVar[frozenset[Seam]] = frozenset({"after"})

    updates: Annotated[int, arg(name="self-imitation.updates")] = 4
    """Gradient steps on own past actions that turned out better than expected, after each update; 0: none."""
    batch_size: Annotated[int, arg(name="self-imitation.batch-size")] = 512
    """Transitions per gradient step."""

    def __post_init__(self) -> None:
        check_options(self, "updates", low=0)
        check_options(self, "batch_size", low=1, high=CAPACITY)

    def attach(self, agent: Any) -> Successes:
        if has_replay(agent):
            raise UserError(f"{self.name}: not possible with {agent.algorithm}, which learns from a replay")
        if agent.reward_scale is not None:
            raise UserError(f"{self.name}: expected normalize_rewards False (--no-normalize-rewards), got True")
        part = Successes(agent, self.updates, self.batch_size)
        agent.seams.after.append(part.learn)
        return part


class Successes:
    """The replay of an agent's finished episodes, and the updates from it.

    A truncated episode counts as ended: R is the sum of the discounted rewards that were received.

    Raises:
        UserError: the replay does not fit into memory.
    """

    def __init__(self, agent: Any, updates: int, batch_size: int) -> None:
        self.agent, self.updates, self.batch_size = agent, updates, batch_size
        observations, actions = agent.spaces
        one = isinstance(actions, gymnasium.spaces.Discrete)
        dtypes = {gymnasium.spaces.Box: np.float32, gymnasium.spaces.MultiBinary: np.bool_}
        check_memory("self-imitation", CAPACITY * (observation_bytes(observations) + 42))
        self.replay = PrioritizedReplay(
            CAPACITY,
            observations.shape or (),
            observations.dtype,
            () if one else (math.prod(actions.shape or ()),),  # sampled actions are flat
            dtypes.get(type(actions), np.int64),
            alpha=ALPHA,
            beta=BETA,
            generator=np.random.default_rng(derived_seed(agent.config.seed, 7)),
            device=agent.device,
        )
        # Of each environment, the observation, action and reward of every step of the running episode.
        self.running: list[list[Taken]] = [[] for _ in range(agent.envs.n_envs)]

    def learn(self, rollout: Rollout) -> dict[str, Any]:
        """Store the episodes that end in a rollout, then imitate."""
        self.add(rollout)
        return self.update()

    def add(self, rollout: Rollout) -> None:
        """Store the episodes that end in a rollout of the agent."""
        shape = rollout.rewards.shape
        columns = [rollout.acted, rollout.actions, rollout.rewards.flatten()]
        observations, actions, rewards = (x.cpu().unflatten(0, shape) for x in columns)
        done, valid = (rollout.terminated | rollout.truncated).cpu(), rollout.valid.cpu()
        for t, b in valid.nonzero().tolist():
            self.running[b].append((observations[t, b], actions[t, b], rewards[t, b]))
            if done[t, b]:
                self._store(self.running[b])
                self.running[b] = []

    def cut(self) -> None:
        """Forget the running episodes."""
        self.running = [[] for _ in self.running]

    def update(self) -> dict[str, Any]:
        """Take ``updates`` gradient steps; return scalar metrics. Do nothing before a whole batch is stored."""
        if len(self.replay) < self.batch_size:
            return {}
        agent, losses, means = self.agent, [], []
        for _ in range(self.updates):
            batch = self.replay.sample(self.batch_size)
            outputs, values = agent.network(batch.observations)
            log_probs = agent.network.distribution.log_probs(outputs, batch.actions)
            loss, gains = imitation_loss(log_probs, values, batch.returns, batch.weights)
            clipped_gradient(loss, agent.parameters, agent.config.max_grad_norm)
            agent.optimizer.step()
            try:
                self.replay.update_priorities(batch.indices, gains)
            except ValueError as error:
                raise UserError(f"self-imitation: diverged: {error}") from None
            losses.append(loss.detach())
            means.append(gains.mean())
        return {"imitation_loss": torch.stack(losses).mean(), "imitation_gain": torch.stack(means).mean()}

    def state_dict(self) -> dict[str, Any]:
        return {"replay": self.replay.state_dict(), "running": self.running}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.replay.load_state_dict(state["replay"])
        self.running = [[tuple(x) for x in steps] for steps in state["running"]]

    def _store(self, steps: list[Taken]) -> None:
        """Add an episode to the replay, with the returns R in place of the rewards."""
        observations, actions, rewards = (torch.stack(x) for x in zip(*steps, strict=True))
        ends = torch.arange(len(steps)) == len(steps) - 1
        never = torch.zeros_like(ends)
        returns = discounted_returns(rewards, torch.zeros_like(rewards), ends, never, self.agent.config.gamma)
        seen = torch.cat([observations, observations[-1:]])  # a placeholder; R needs no final observation
        fill(self.replay, [RecordedEpisode(*(x.numpy() for x in (seen, actions, returns, ends, never)))])


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
