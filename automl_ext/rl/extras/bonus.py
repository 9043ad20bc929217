"""Exploration bonuses: rewards for novelty that an agent learns from in addition to the task's rewards.

On-policy agents see r + weight · b(s′) in every step (:class:`StepBonus`). In a replay, a bonus would go out of date
while the state becomes familiar. Q-learning therefore stores the task's rewards, and computes the bonuses anew for each
batch (:class:`BatchBonus`). Reported returns and evaluations do not contain bonuses.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from torch import Tensor

from automl_ext.rl.envs.transforms import add_transform
from automl_ext.rl.envs.vector import Step
from automl_ext.rl.extras.requirements import has_replay
from automl_ext.rl.replay.uniform import Batch
from automl_ext.training.errors import UserError


class Novelty(Protocol):
    """A measure of novelty that learns from the steps of the environments."""

    def observe(self, step: Step) -> None:
        """Learn from one step of every environment."""

    def __call__(self, observations: Tensor) -> Tensor:
        """Return b of next observations [N, ...], float32 [N], on their device."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def add_bonus(agent: Any, name: str, weight: float, once: bool, novelty: Novelty) -> None:
    """Let an agent learn from rewards with a bonus.

    Args:
        agent: on-policy, or Q-learning with targets of one step.
        name: name of the extra, under which the mean bonus per step is logged.
        weight: factor of the bonus.
        once: whether an observation gets the bonus only when it is reached for the first time in its episode.
        novelty: measures b and learns from the agent's steps.

    Raises:
        UserError: Q-learning with ``once``, or with targets of several steps.
    """
    envs = agent.envs
    if not has_replay(agent):
        visits = FirstVisits(ObservationHash(envs.observation_space), envs.n_envs) if once else None
        step_bonus = StepBonus(novelty, weight, visits)
        add_transform(envs, step_bonus)
        added: StepBonus | BatchBonus = step_bonus
    else:
        if once:
            raise UserError(f"{name}.once: expected False for {agent.algorithm}, whose replay has no whole episodes")
        if agent.config.n_step > 1:
            raise UserError(f"n_step: expected 1 with {name}, got {agent.config.n_step}")
        add_transform(envs, StepBonus(novelty, 0.0))
        added = BatchBonus(novelty, weight)
        agent.seams.batch.append(added)

    def measured(rollout: Any) -> dict[str, Any]:
        mean = added.mean()
        return {} if mean is None else {name: mean}

    agent.seams.after.append(measured)


class StepBonus:
    """Observe every step and add ``weight`` · b(s′) to its rewards: one of ``Envs.transforms``.

    Args:
        novelty: learns from the steps.
        weight: factor of the bonus. With 0, steps are observed and not changed.
        once: if not None, only steps that it selects get a bonus.
    """

    def __init__(self, novelty: Novelty, weight: float, once: FirstVisits | None = None) -> None:
        self.novelty, self.weight, self.once = novelty, weight, once
        self._sum, self._count = 0.0, 0

    def __call__(self, step: Step) -> Step:
        self.novelty.observe(step)
        if self.weight == 0:
            return step
        added = self.weight * self.novelty(torch.from_numpy(step.next_observations)).numpy() * step.valid
        if self.once is not None:
            added *= self.once(step)
        self._sum, self._count = self._sum + float(added.sum()), self._count + int(step.valid.sum())
        return step._replace(rewards=step.rewards + added)

    def mean(self) -> float:
        """Return the mean bonus per step since the last call."""
        mean = self._sum / max(self._count, 1)
        self._sum, self._count = 0.0, 0
        return mean

    def cut(self) -> None:
        """Forget the running episodes."""
        if self.once is not None:
            self.once.cut()

    def state_dict(self) -> dict[str, Any]:
        once = {} if self.once is None else {"once": self.once.state_dict()}
        return self.novelty.state_dict() | once

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.novelty.load_state_dict({key: value for key, value in state.items() if key != "once"})
        if self.once is not None:
            self.once.load_state_dict(state["once"])


class BatchBonus:
    """Add ``weight`` · b(s′) to the returns of a batch of single steps.

    A :class:`StepBonus` of weight 0 trains the measure of novelty on every step, and saves its state.
    """

    def __init__(self, novelty: Novelty, weight: float) -> None:
        self.novelty, self.weight = novelty, weight
        self._means: list[Tensor] = []

    def __call__(self, batch: Batch) -> Batch:
        added = self.weight * self.novelty(batch.next_observations)
        self._means.append(added.mean())
        return dataclasses.replace(batch, returns=batch.returns + added)

    def mean(self) -> Tensor | None:
        """Return the mean bonus per transition since the last call; None if there were no batches."""
        means, self._means = self._means, []
        return torch.stack(means).mean() if means else None


class FirstVisits:
    """Tells which steps reach an observation for the first time in their episode (NovelD, Zhang et al. 2021).

    Without this limit, the bonuses of a long episode can exceed the reward of the task, and an agent that reaches the
    goal ends the episode and so loses them.

    Args:
        keys: the hash of observations.
        n_envs: number of environments.
    """

    def __init__(self, keys: ObservationHash, n_envs: int) -> None:
        self.keys = keys
        self.seen: list[set[int]] = [set() for _ in range(n_envs)]

    def __call__(self, step: Step) -> np.ndarray:
        """Record one step of every environment. Return bool [B]; False where the step is not valid."""
        before, after = self.keys(step.observations), self.keys(step.next_observations)
        first = np.zeros(len(after), bool)
        for i in np.flatnonzero(step.valid):
            seen = self.seen[i]
            seen.add(int(before[i]))
            first[i] = int(after[i]) not in seen
            seen.add(int(after[i]))
            if step.terminated[i] or step.truncated[i]:
                seen.clear()
        return first

    def cut(self) -> None:
        """Forget the running episodes."""
        self.seen = [set() for _ in self.seen]

    def state_dict(self) -> dict[str, Any]:
        keys = [np.fromiter(seen, np.uint64, len(seen)) for seen in self.seen]
        return {"seen": [torch.from_numpy(part.view(np.int64)) for part in keys]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = [set(part.numpy().view(np.uint64).tolist()) for part in state["seen"]]


class ObservationHash:
    """Maps observations to integers (Tang et al. 2017, https://arxiv.org/abs/1611.04717, but exact up to rounding).

    Equal observations have equal hashes; different ones have equal hashes with a probability of 2⁻⁶⁴.

    Args:
        space: space of the observations.
        seed: determines the hash function.
    """

    def __init__(self, space: gymnasium.Space, seed: int = 0) -> None:
        size = math.prod(space.shape or ())
        self.factors = np.random.default_rng(seed).integers(2**64, size=size, dtype=np.uint64) | np.uint64(1)

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Hash observations [N, ...] to Σᵢ aᵢ xᵢ modulo 2⁶⁴ with random odd aᵢ, uint64 [N].

        Floats are rounded to one decimal.
        """
        x = observations.reshape(len(observations), -1)
        if x.dtype.kind == "f":
            with np.errstate(invalid="ignore"):  # numbers beyond 64 bits
                x = np.rint(x * 10.0).astype(np.int64)
        return (x.astype(np.uint64) * self.factors).sum(axis=1)
