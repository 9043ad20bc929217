"""A bonus that is the prediction error of a model: online training of the model, and normalization (Burda et al. 2018).

repeat:
    collect ``batch_size`` transitions; their bonus is error / scale
    update the statistics of the observations
    scale ← standard deviation of the discounted sums of errors, over all of the past
    one step of Adam on the model's loss
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from automl_ext.rl.envs.vector import Step
from automl_ext.rl.networks.body import RunningNorm
from automl_ext.training.optimizer_state import load_optimizer

CLIP = 5.0  # of normalized observations


class Seen(NamedTuple):
    """T steps of B environments: observations and actions [T, B, ...], ``valid`` bool [T, B]."""

    observations: Tensor
    actions: Tensor
    next_observations: Tensor
    valid: Tensor


class LearnedBonus:
    """The error of a model that is trained on the agent's transitions, divided by a running scale.

    The bonus is 0 until the first ``batch_size`` transitions, which give the first statistics.

    Args:
        model: maps normalized observations, actions and next observations of [N] transitions to errors [N], and to
            losses [N] that teach it to make smaller ones.
        space: space of the observations.
        n_envs: number of environments, B.
        gamma: discount factor of the sums of errors.
        device: device of the model.
        batch_size: transitions per update of the model.
        lr: learning rate of Adam.
    """

    def __init__(
        self,
        model: nn.Module,
        space: gymnasium.Space,
        n_envs: int,
        gamma: float,
        device: torch.device,
        batch_size: int = 32,
        lr: float = 1e-3,
    ) -> None:
        self.model, self.gamma, self.device = model, gamma, device
        self.steps = max(batch_size // n_envs, 1)  # steps of all environments per update
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr)
        self.norm = RunningNorm(space.shape or (), clip=CLIP).to(device)
        self.sums = torch.zeros(n_envs, device=device)  # discounted sums of errors, not reset at ends of episodes
        self.sums_norm = RunningNorm(()).to(device)
        self.seen: list[Seen] = []

    def observe(self, step: Step) -> None:
        """Collect one step of every environment; update the model when there are enough."""
        if len(self.seen) == self.steps:  # here, so that a bonus comes from a model that has not seen its transition
            self.update()
            self.seen = []
        arrays = step.observations, step.actions, step.next_observations, step.valid
        self.seen.append(Seen(*(torch.as_tensor(np.array(x), device=self.device) for x in arrays)))

    @torch.no_grad()
    def __call__(self, observations: Tensor, actions: Tensor, next_observations: Tensor) -> Tensor:
        """Return the bonus of transitions, float32 [N]."""
        x = [part.to(self.device) for part in (observations, actions, next_observations)]
        errors, _ = self.model(self.norm(x[0].float()), x[1], self.norm(x[2].float()))
        scaled = errors * self.sums_norm.scale * (self.sums_norm.count > 0)
        return scaled.to(observations.device)

    def update(self) -> Tensor:
        """Update statistics and model with the collected steps; return the model's mean loss, 0-dim."""
        seen = Seen(*(torch.stack(parts) for parts in zip(*self.seen, strict=True)))
        valid = seen.valid.flatten()
        self.norm.update(seen.next_observations.flatten(0, 1)[valid])
        x, actions, after = (part.flatten(0, 1) for part in seen[:3])
        errors, losses = self.model(self.norm(x.float()), actions, self.norm(after.float()))
        loss = (losses * valid).sum() / valid.sum().clamp(min=1)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        sums = []
        for error in (errors.detach() * valid).view(seen.valid.shape):
            self.sums = self.gamma * self.sums + error
            sums.append(self.sums)
        self.sums_norm.update(torch.stack(sums).flatten())
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "norm": self.norm.state_dict(),
            "sums": self.sums,
            "sums_norm": self.sums_norm.state_dict(),
            "seen": [tuple(seen) for seen in self.seen],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.norm.load_state_dict(state["norm"])
        self.sums = state["sums"].to(self.device)
        self.sums_norm.load_state_dict(state["sums_norm"])
        self.seen = [Seen(*(x.to(self.device) for x in seen)) for seen in state["seen"]]


def normalized_space(space: gymnasium.Space) -> spaces.Box:
    """Return the space of normalized observations, as the models' networks receive them."""
    return spaces.Box(-CLIP, CLIP, space.shape or (), np.float32)
