"""Exploration bonuses: rewards for novelty, which an agent learns from in addition to the task's rewards.

On-policy agents see r + weight · b(s, a, s′) in every step (:class:`StepBonus`). In a replay a bonus would go out of
date while the state becomes familiar. Q-learning therefore stores the task's rewards and adds the current bonus to
each batch (:class:`BatchBonus`). Reported returns and evaluations are those of the task.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Protocol

import gymnasium
import numpy as np
import torch
from torch import Tensor

from automl_ext.rl.envs.transforms import add_transform
from automl_ext.rl.envs.vector import Envs, Step
from automl_ext.rl.exploration.count import CountBonus
from automl_ext.rl.exploration.first_visits import FirstVisits
from automl_ext.rl.exploration.hashing import ObservationHash
from automl_ext.rl.exploration.icm import ICM
from automl_ext.rl.exploration.learned import LearnedBonus
from automl_ext.rl.exploration.rnd import RND
from automl_ext.rl.replay.uniform import Batch
from automl_ext.training.seeding import derived_seed

BonusName = Literal["none", "count", "rnd", "icm"]


class Bonus(Protocol):
    """A measure of novelty that learns from the steps of the environments."""

    def observe(self, step: Step) -> None:
        """Learn from one step of every environment. Discrete actions count from 0."""

    def __call__(self, observations: Tensor, actions: Tensor, next_observations: Tensor) -> Tensor:
        """Return the bonus b(s, a, s′) of transitions, float32 [N], on the device of the observations."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class StepBonus:
    """Observe every step and add ``weight`` · bonus to its rewards: a transform for ``Envs.transform``.

    Args:
        bonus: learns from the steps.
        weight: factor of the bonus. With 0, steps are observed and not changed.
        first_action: the smallest of Discrete actions.
        once: if not None, only steps that it selects get a bonus.
    """

    def __init__(self, bonus: Bonus, weight: float, first_action: int = 0, once: FirstVisits | None = None) -> None:
        self.bonus, self.weight, self.first_action, self.once = bonus, weight, first_action, once
        self._sum, self._count = 0.0, 0

    def __call__(self, step: Step) -> Step:
        actions = step.actions - self.first_action if self.first_action else step.actions
        self.bonus.observe(step._replace(actions=actions))
        if self.weight == 0:
            return step
        arrays = (torch.from_numpy(np.asarray(x)) for x in (step.observations, actions, step.next_observations))
        added = self.weight * self.bonus(*arrays).numpy() * step.valid
        if self.once is not None:
            added *= self.once(step)
        self._sum, self._count = self._sum + float(added.sum()), self._count + int(step.valid.sum())
        return step._replace(rewards=step.rewards + added)

    def measured(self) -> dict[str, float]:
        """Return the mean addition to the rewards since the last call, as the metric ``bonus``."""
        mean = self._sum / max(self._count, 1)
        self._sum, self._count = 0.0, 0
        return {"bonus": mean}

    def state_dict(self) -> dict[str, Any]:
        once = {} if self.once is None else {"once": self.once.state_dict()}
        return self.bonus.state_dict() | once

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.bonus.load_state_dict({key: value for key, value in state.items() if key != "once"})
        if self.once is not None:
            self.once.load_state_dict(state["once"])


class BatchBonus:
    """Add ``weight`` · bonus to the returns of a batch of single steps: a transform for ``QLearner.transform``.

    A :class:`StepBonus` of weight 0 teaches the bonus and has its state.
    """

    def __init__(self, bonus: Bonus, weight: float) -> None:
        self.bonus, self.weight = bonus, weight
        self._means: list[Tensor] = []

    def __call__(self, batch: Batch) -> Batch:
        added = self.weight * self.bonus(batch.observations, batch.actions, batch.next_observations)
        self._means.append(added.mean())
        return dataclasses.replace(batch, returns=batch.returns + added)

    def measured(self) -> dict[str, Tensor]:
        """Return the mean addition to the returns since the last call, as the metric ``bonus``; {} for no batches."""
        means, self._means = self._means, []
        return {"bonus": torch.stack(means).mean()} if means else {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def make_bonus(name: BonusName, envs: Envs, gamma: float, seed: int, device: torch.device) -> Bonus | None:
    """Make a bonus by its name; None for "none"."""
    spaces = envs.observation_space, envs.action_space
    if name == "none":
        return None
    if name == "count":
        return CountBonus(spaces[0], derived_seed(seed, 6))
    with torch.random.fork_rng(devices=[]):  # initial weights come from the global generator
        torch.manual_seed(derived_seed(seed, 6))
        model = RND(spaces[0]) if name == "rnd" else ICM(*spaces)
    return LearnedBonus(model.to(device), spaces[0], envs.n_envs, gamma, device)


def explore_steps(
    name: BonusName,
    weight: float,
    envs: Envs,
    gamma: float,
    seed: int,
    device: torch.device,
    once: bool = False,
) -> StepBonus | None:
    """Let an on-policy agent with these environments learn from rewards with a bonus.

    Args:
        name: the bonus; "none" changes nothing.
        weight: factor of the bonus.
        envs: a transform is added to them.
        gamma: the agent's discount factor.
        seed: of the bonus.
        device: device of the bonus' networks.
        once: whether an observation gets a bonus only when it is reached for the first time in its episode.

    Returns:
        The transform; None for "none".

    Raises:
        UserError: observations that the networks of the bonus do not support.
    """
    bonus = make_bonus(name, envs, gamma, seed, device)
    if bonus is None:
        return None
    visits = FirstVisits(ObservationHash(envs.observation_space), envs.n_envs) if once else None
    transform = StepBonus(bonus, weight, first_action(envs.action_space), visits)
    add_transform(envs, transform)
    return transform


def explore_batches(
    name: BonusName, weight: float, envs: Envs, gamma: float, seed: int, device: torch.device
) -> BatchBonus | None:
    """Let the bonus observe the environments; return the transform that adds it to batches. See :func:`explore_steps`.

    Returns:
        None for "none".
    """
    bonus = make_bonus(name, envs, gamma, seed, device)
    if bonus is None:
        return None
    add_transform(envs, StepBonus(bonus, 0.0, first_action(envs.action_space)))
    return BatchBonus(bonus, weight)


def first_action(space: gymnasium.Space) -> int:
    """Return the smallest action of a Discrete space; 0 for other spaces."""
    return int(space.start) if isinstance(space, gymnasium.spaces.Discrete) else 0
