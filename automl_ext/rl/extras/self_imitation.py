"""Self-imitation (Oh et al. 2018, https://arxiv.org/abs/1806.05635): imitate past actions that turned out well.

store finished episodes in a prioritized replay, with the return R that followed every action
``updates`` times after each update of the policy:
    sample transitions with priority (R − V(s))₊
    one step of the optimizer on  −(R − V(s))₊ log π(a|s) + ``VALUE_WEIGHT`` · ½ (R − V(s))₊²        equations 1 to 3
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tyro.conf import arg

from automl_ext.rl.envs.rollouts import Rollout
from automl_ext.rl.envs.vector import Step
from automl_ext.rl.extras.checks import check_options, has_replay
from automl_ext.rl.loop.checks import observation_bytes
from automl_ext.rl.loop.seams import Seam
from automl_ext.rl.networks.parameters import clipped_gradient
from automl_ext.rl.replay.prioritized import PrioritizedReplay
from automl_ext.training.errors import UserError
from automl_ext.training.machine.memory import check_memory
from automl_ext.training.seeding import derived_seed

CAPACITY = 100_000  # transitions
LONGEST = 100_000  # steps; returns of longer episodes are cut here
ALPHA, BETA = 0.6, 0.1
CLIP = 1.0  # of (R − V)₊
VALUE_WEIGHT = 0.01


@dataclass
class SelfImitation:
    """Imitation of an on-policy agent's own past actions that turned out better than V predicts.

    Attaching it raises UserError to an agent that learns from a replay, or if its own does not fit into memory.
    """

    name: ClassVar[str] = "self-imitation"
    seams: ClassVar[frozenset[Seam]] = frozenset({"after"})

    updates: Annotated[int, arg(name="self-imitation.updates")] = 4
    """Gradient steps on own past actions that turned out better than expected, after each update; 0: none."""
    batch_size: Annotated[int, arg(name="self-imitation.batch-size")] = 512
    """Transitions per gradient step."""

    def __post_init__(self) -> None:
        check_options(self, "updates", low=0)
        check_options(self, "batch_size", low=1)

    def attach(self, agent: Any) -> Successes:
        if has_replay(agent):
            raise UserError(f"{self.name}: not possible with {agent.algorithm}, which learns from a replay")
        part = Successes(agent, self.updates, self.batch_size)
        agent.seams.after.append(part.learn)
        return part


class Taken(NamedTuple):
    """One step of one environment in a running episode."""

    observation: Tensor
    action: Tensor
    reward: Tensor


class Successes:
    """The replay of an agent's finished episodes, and the updates from it.

    A truncated episode counts as ended: R is the sum of the discounted rewards that were received.

    Raises:
        UserError: the replay does not fit into memory.
    """

    def __init__(self, agent: Any, updates: int, batch_size: int) -> None:
        self.agent, self.updates, self.batch_size = agent, updates, batch_size
        observations, actions = agent.spaces
        n_envs, one = agent.envs.n_envs, isinstance(actions, gymnasium.spaces.Discrete)
        dtypes = {gymnasium.spaces.Box: np.float32, gymnasium.spaces.MultiBinary: np.bool_}
        check_memory("self-imitation", CAPACITY * (observation_bytes(observations) + 42))
        self.replay = PrioritizedReplay(
            max(CAPACITY, n_envs),
            observations.shape or (),
            observations.dtype,
            () if one else (math.prod(actions.shape or ()),),  # sampled actions are flat
            dtypes.get(type(actions), np.int64),
            n_envs=n_envs,
            n_step=LONGEST,
            gamma=agent.config.gamma,
            alpha=ALPHA,
            beta=BETA,
            generator=np.random.default_rng(derived_seed(agent.config.seed, 7)),
            device=agent.device,
        )
        self.running: list[list[Taken]] = [[] for _ in range(n_envs)]

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
        for t in range(shape[0]):
            for b in valid[t].nonzero().flatten().tolist():
                self.running[b].append(Taken(observations[t, b], actions[t, b], rewards[t, b]))
            ended = (done[t] & valid[t]).nonzero().flatten().tolist()
            if ended:
                self._store(ended)

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
