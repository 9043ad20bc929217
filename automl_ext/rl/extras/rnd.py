"""Random network distillation (Burda et al. 2018, https://arxiv.org/abs/1810.12894).

A network f̂ learns to predict a fixed random network f. Its error is large for observations that are unlike those that
it was trained on:  b(s′) = ‖f̂(s′) − f(s′)‖² / dimensions / scale

repeat:
    collect ``batch_size`` next observations; their bonus is error / scale
    update the statistics of the observations
    scale ← standard deviation of the discounted sums of errors, over all of the past
    one step of Adam on the mean error
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from tyro.conf import arg

from automl_ext.rl.envs.packed import check_not_packed
from automl_ext.rl.envs.vector import Step
from automl_ext.rl.extras.bonus import add_bonus
from automl_ext.rl.extras.requirements import check_options
from automl_ext.rl.loop.seams import Seam
from automl_ext.rl.networks.body import Body, RunningNorm, orthogonal_
from automl_ext.training.machine.device import choose_device
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.seeding import derived_seed, seeded

CLIP = 5.0  # of normalized observations
UNITS = 64  # of every hidden layer, and outputs of both networks


@dataclass
class RND:
    """A reward of ``weight`` · b(s′) for the next observation s′; see :func:`add_bonus`.

    Attaching it raises UserError for observations that :class:`~automl_ext.rl.networks.body.Body` does not support.
    """

    name: ClassVar[str] = "rnd"
    seams: ClassVar[frozenset[Seam]] = frozenset({"steps", "after"})

    weight: Annotated[float, arg(name="rnd.weight")] = 1.0
    """Weight of the bonus, the scaled error of a network that predicts a random network; 0: none."""
    once: Annotated[bool, arg(name="rnd.once")] = False
    """Give the bonus only at the first visit of an observation in an episode; not in Q-learning."""

    def __post_init__(self) -> None:
        check_options(self, "weight", low=0)

    def attach(self, agent: Any) -> None:
        check_not_packed(agent.spaces[0], self.name)
        config, envs = agent.config, agent.envs
        with seeded(derived_seed(config.seed, 6)):
            networks = Distillation(envs.observation_space)
        error = PredictionError(networks, envs.observation_space, envs.n_envs, config.gamma, config.device)
        add_bonus(agent, self.name, self.weight, self.once, error)


class Distillation(nn.Module):
    """The predictor f̂ and the random network f. Maps normalized observations [N, ...] to errors [N].

    As in the paper, the predictor has one hidden layer more than the random network.
    """

    def __init__(self, space: gymnasium.Space) -> None:
        super().__init__()
        normalized = spaces.Box(-CLIP, CLIP, space.shape or (), np.float32)
        self.target = network(normalized, layers=1).requires_grad_(False)
        self.predictor = network(normalized, layers=2)

    def forward(self, observations: Tensor) -> Tensor:
        return (self.predictor(observations) - self.target(observations)).square().mean(1)


def network(space: gymnasium.Space, layers: int) -> nn.Sequential:
    """Build a network of normalized observations, with orthogonal weights as in the paper's code."""
    body = Body(space, [UNITS] * layers, nn.ReLU)
    built = nn.Sequential(body, nn.Linear(UNITS, UNITS))
    for layer in built.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            orthogonal_(layer.weight, 2**0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return built


class PredictionError:
    """The error of a model that is trained on the agent's observations, divided by a running scale.

    The bonus is 0 until the first ``batch_size`` steps, which give the first statistics.

    Args:
        model: maps normalized next observations [N, ...] to errors [N], and learns to make them smaller.
        space: space of the observations.
        n_envs: number of environments, B.
        gamma: discount factor of the sums of errors.
        device: device of the model.
        batch_size: observations per update of the model.
        lr: learning rate of Adam.
    """

    def __init__(
        self,
        model: nn.Module,
        space: gymnasium.Space,
        n_envs: int,
        gamma: float,
        device: str = "cpu",
        batch_size: int = 32,
        lr: float = 1e-3,
    ) -> None:
        self.gamma, self.device = gamma, choose_device(device)
        self.model = model.to(self.device)
        self.steps = max(batch_size // n_envs, 1)  # steps of all environments per update
        self.optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr)
        self.norm = RunningNorm(space.shape or (), clip=CLIP).to(self.device)
        self.sums = torch.zeros(n_envs, device=self.device)  # discounted sums of errors, not reset at ends of episodes
        self.sums_norm = RunningNorm(()).to(self.device)
        self.seen: list[tuple[Tensor, Tensor]] = []  # per step: next observations [B, ...], valid bool [B]

    def observe(self, step: Step) -> None:
        """Collect one step of every environment; update the model when there are enough."""
        if len(self.seen) == self.steps:  # here, so that a bonus comes from a model that has not seen its observation
            self.update()
            self.seen = []
        parts = step.next_observations, step.valid
        self.seen.append((torch.tensor(parts[0], device=self.device), torch.tensor(parts[1], device=self.device)))

    @torch.no_grad()
    def __call__(self, observations: Tensor) -> Tensor:
        """Return the bonus of next observations, float32 [N]."""
        errors = self.model(self.norm(observations.to(self.device).float()))
        return (errors * self.sums_norm.scale * (self.sums_norm.count > 0)).to(observations.device)

    @torch.enable_grad()  # environments take their steps without gradients
    def update(self) -> None:
        """Update statistics and model with the collected steps."""
        observations, valid = (torch.stack(parts) for parts in zip(*self.seen, strict=True))  # [T, B, ...]
        flat, mask = observations.flatten(0, 1), valid.flatten()
        self.norm.update(flat[mask])
        errors = self.model(self.norm(flat.float())) * mask
        self.optimizer.zero_grad()
        (errors.sum() / mask.sum().clamp(min=1)).backward()
        self.optimizer.step()
        sums = []
        for error, included in zip(errors.detach().view(valid.shape), valid, strict=True):
            self.sums = torch.where(included, self.gamma * self.sums + error, self.sums)
            sums.append(self.sums[included])
        self.sums_norm.update(torch.cat(sums))

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "norm": self.norm.state_dict(),
            "sums": self.sums,
            "sums_norm": self.sums_norm.state_dict(),
            "seen": list(self.seen),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.norm.load_state_dict(state["norm"])
        self.sums = state["sums"].to(self.device)
        self.sums_norm.load_state_dict(state["sums_norm"])
        self.seen = [(x.to(self.device), valid.to(self.device)) for x, valid in state["seen"]]
