"""CURL: a contrastive loss on the encoder of Q-learning (Srinivas, Laskin and Abbeel 2020, https://arxiv.org/abs/2004.04136).

f: the Q-network without its head; g: a linear layer and a layer norm; f_m, g_m: moving averages of f and g
q = g(f(shift(s)))                                                  queries
k = g_m(f_m(shift'(s)))                                             keys, without a gradient
loss = −log softmax over the keys of the batch of qᵀ W k            InfoNCE: van den Oord et al. 2018, equation 4
after each gradient step: (f_m, g_m) ← m (f_m, g_m) + (1 − m) (f, g)
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tyro.conf import arg

from automl_ext.rl.extras.augment import RandomShift
from automl_ext.rl.extras.requirements import check_options, has_replay, image_shape
from automl_ext.rl.loop.seams import Seam
from automl_ext.rl.networks.q_network import QNetwork
from automl_ext.rl.replay.uniform import Batch
from automl_ext.training.errors import UserError
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.seeding import derived_seed, generator, seeded

UNITS = 128  # of queries and keys
MOMENTUM = 0.95  # m


@dataclass
class Contrastive:
    """A loss with which the encoder of Q-learning learns to recognize an image after another random shift.

    Attaching it raises UserError for an agent without a replay, or for observations that are not images.
    """

    name: ClassVar[str] = "contrastive"
    seams: ClassVar[frozenset[Seam]] = frozenset({"terms"})

    weight: Annotated[float, arg(name="contrastive.weight")] = 1.0
    """Weight of a contrastive loss on the encoder of Q-learning from images (CURL); 0: none."""

    def __post_init__(self) -> None:
        check_options(self, "weight", low=0)

    def attach(self, agent: Any) -> ShiftRecognition:
        if not has_replay(agent):
            raise UserError(f"{self.name}: not possible with {agent.algorithm}, which has no replay")
        config, rng = agent.config, generator(derived_seed(agent.config.seed, 10), agent.device)
        shifts = RandomShift(image_shape(agent, self.name), rng)
        with seeded(derived_seed(config.seed, 11)):
            part = ShiftRecognition(agent.online, shifts, self.weight, config.lr)
        agent.seams.terms.append(part)
        return part


class ShiftRecognition:
    """The objective, a :class:`~automl_ext.rl.loop.seams.LossTerm`.

    Args:
        network: the online network, on its device.
        shifts: shifts queries and keys.
        weight: weight of the loss.
        lr: learning rate of Adam for g and W.
    """

    def __init__(self, network: QNetwork, shifts: RandomShift, weight: float, lr: float) -> None:
        self.shifts, self.weight, features = shifts, weight, network.body.features
        project = nn.Sequential(nn.Linear(features, UNITS), nn.LayerNorm(UNITS))
        bilinear = nn.Linear(UNITS, UNITS, bias=False)
        self.own = nn.ModuleDict({"project": project, "bilinear": bilinear}).to(shifts.rng.device)
        self.optimizer = torch.optim.Adam(self.own.parameters(), lr, fused=True)
        self.keys = nn.Sequential(copy.deepcopy(network.body), copy.deepcopy(project)).requires_grad_(False)
        self._averaged: list[Tensor] = list(self.keys.parameters())
        self._online = [p.detach() for p in chain(network.body.parameters(), project.parameters())]  # share memory

    def loss(self, network: QNetwork, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted loss, and the loss without the weight as a metric."""
        observations = batch.observations[first_rows(batch.indices).to(batch.observations.device)]
        queries = self.own["project"](network.body(self.shifts(observations)))
        with torch.no_grad():
            keys = self.keys(self.shifts(observations))
        loss = info_nce(self.own["bilinear"](queries), keys)
        return self.weight * loss, {Contrastive.name: loss.detach()}

    def step(self) -> None:
        """Take a step on g and W, and move the averages."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        torch._foreach_lerp_(self._averaged, self._online, 1 - MOMENTUM)

    def state_dict(self) -> dict[str, Any]:
        return {
            "own": self.own.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "keys": self.keys.state_dict(),
            "rng": self.shifts.rng.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.own.load_state_dict(state["own"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.keys.load_state_dict(state["keys"])
        self.shifts.rng.set_state(state["rng"])


def info_nce(queries: Tensor, keys: Tensor) -> Tensor:
    """Return the mean cross-entropy, in nats, of finding the key of each query among all keys.

    Args:
        queries, keys: [N, units]; a pair's score is the dot product.
    """
    return F.cross_entropy(queries @ keys.t(), torch.arange(len(queries), device=queries.device))


def first_rows(indices: Tensor) -> Tensor:
    """Return where each transition of a batch occurs first, bool [N], from its ``indices`` [N].

    Other rows of a transition, sampled again or copied by an augmentation, must not count as negatives.
    """
    return ~(indices[:, None] == indices).tril(-1).any(1)
