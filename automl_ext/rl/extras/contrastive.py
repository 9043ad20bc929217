"""Prediction of the next latent state, an auxiliary objective for the encoder of a Q-network.

z = e(s);  p = q(g(h(z, a)));  t = g_m(e_m(s′))        h: transition model; g: projection; q: predictor
loss = −log softmax over the batch of p · t / τ        InfoNCE: van den Oord et al. 2018, eq. 4

e is the Q-network without its head. e_m and g_m are moving averages of e and g and get no gradient. Encoding
unpredictable parts of an observation, such as noise, does not lower the loss, so the encoder learns to leave them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from tyro.conf import arg

from automl_ext.ops.networks import FusedMLP
from automl_ext.rl.extras.checks import check_options, off_policy
from automl_ext.rl.loop.seams import Seam
from automl_ext.rl.networks.packed import check_not_packed
from automl_ext.rl.networks.q_network import QNetwork
from automl_ext.rl.replay.uniform import Batch
from automl_ext.training.errors import UserError
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.seeding import derived_seed

UNITS = 64  # of the projection
MOST_HIDDEN = 256  # hidden units of h: an image has thousands of features, and h would cost more than the agent
MOMENTUM = 0.99  # of the moving averages, as in Schwarzer et al. 2021
TEMPERATURE = 0.1  # τ


@dataclass
class Contrastive:
    """An encoder of Q-learning that also predicts the next latent state.

    Attaching it raises UserError if the Q-network has no encoder, or together with several copies of each transition:
    the copies of a state would be told apart.
    """

    name: ClassVar[str] = "contrastive"
    seams: ClassVar[frozenset[Seam]] = frozenset({"terms"})

    weight: Annotated[float, arg(name="contrastive.weight")] = 1.0
    """Weight of a loss that trains the encoder of Q-learning to predict the next latent state; 0: none."""

    def __post_init__(self) -> None:
        check_options(self, "weight", low=0)

    @property
    def active(self) -> bool:
        return self.weight > 0

    def attach(self, agent: Any) -> LatentPrediction:
        check_not_packed(agent.spaces[0], self.name)
        off_policy(agent, self.name)
        copies = [getattr(transform, "copies", 1) for transform in agent.seams.batch]
        if max(copies, default=1) > 1:
            raise UserError(f"{self.name}: expected shift.copies 1 or 0 with it, got {max(copies)}")
        seed = derived_seed(derived_seed(agent.config.seed, 1), 2)
        part = LatentPrediction(self.weight, agent.online, agent.config.lr, seed)
        agent.seams.terms.append(part)
        return part


def contrastive_loss(predictions: Tensor, targets: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the InfoNCE loss in nats: the cross-entropy of finding each prediction's target among all targets.

    Args:
        predictions, targets: [N, units]; they are normalized, so that similarities are cosines.
        temperature: τ.
    """
    similarities = F.normalize(predictions) @ F.normalize(targets).t()
    return F.cross_entropy(similarities / temperature, torch.arange(len(predictions), device=predictions.device))


class LatentPrediction:
    """The objective as a :class:`~automl_ext.rl.loop.seams.LossTerm`.

    If ``n_step`` is above 1, s′ is up to ``n_step`` steps later, and h gets the first action only.

    Args:
        weight: weight of the loss.
        network: the online network.
        lr: learning rate of Adam for h, g and q.
        seed: seed of their initial weights.

    Raises:
        UserError: the network has no encoder.
    """

    def __init__(self, weight: float, network: QNetwork, lr: float, seed: int) -> None:
        self.weight, self.actions = weight, network.actions
        self.encoder, features = encoder_of(network)
        with torch.random.fork_rng(devices=[]):  # initial weights come from the global generator
            torch.manual_seed(seed)
            hidden = min(features, MOST_HIDDEN)
            model = nn.Sequential(
                nn.Linear(features + network.actions, hidden), nn.ReLU(), nn.Linear(hidden, features), nn.ReLU()
            )
            self.models = nn.ModuleDict(
                {"model": model, "projection": nn.Linear(features, UNITS), "predictor": nn.Linear(UNITS, UNITS)}
            ).to(next(network.parameters()).device)
        self.optimizer = torch.optim.Adam(self.models.parameters(), lr, fused=True)
        self.averages = {name: p.detach().clone() for name, p in self._averaged()}

    def _averaged(self) -> list[tuple[str, nn.Parameter]]:
        named = [*self.encoder.named_parameters(prefix="encoder")]
        return [*named, *self.models["projection"].named_parameters(prefix="projection")]

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted loss, and the loss without the weight as a metric."""
        targets = self.targets(batch.next_observations)
        z, actions = self.encoder(batch.observations), F.one_hot(batch.actions, self.actions)
        predicted = self.models["model"](torch.cat([z, actions], 1))
        loss = contrastive_loss(self.models["predictor"](self.models["projection"](predicted)), targets)
        return self.weight * loss, {Contrastive.name: loss.detach()}

    @torch.no_grad()
    def targets(self, observations: Tensor) -> Tensor:
        """Update the moving averages, then compute g_m(e_m(s′)), [N, units]."""
        online = [p.detach() for _, p in self._averaged()]
        torch._foreach_lerp_(list(self.averages.values()), online, 1 - MOMENTUM)
        parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "projection": {}}
        for name, value in self.averages.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        z = functional_call(self.encoder, parts["encoder"], observations)  # with the network's own statistics
        out: Tensor = functional_call(self.models["projection"], parts["projection"], z)
        return out

    def step(self) -> None:
        """Update h, g and q."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {
            "models": self.models.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averages": dict(self.averages),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.models.load_state_dict(state["models"])
        load_optimizer(self.optimizer, state["optimizer"])
        if state["averages"].keys() != self.averages.keys():
            raise ValueError(f"averages: expected {', '.join(self.averages)}, got {', '.join(state['averages'])}")
        for name, value in self.averages.items():
            value.copy_(state["averages"][name])


def encoder_of(network: QNetwork) -> tuple[nn.Module, int]:
    """Return what precedes a Q-network's last hidden layer, with the same parameters, and its number of features.

    Raises:
        UserError: nothing with parameters precedes it.
    """
    if next(network.body.parameters(), None) is not None:
        return network.body, network.body.features
    if isinstance(network.head, FusedMLP) and len(network.head) > 3:  # a perceptron of at least two hidden layers
        *layers, last_hidden, _, _ = network.head
        assert isinstance(last_hidden, nn.Linear)
        return nn.Sequential(network.body, *layers), last_hidden.in_features
    raise UserError("contrastive: expected at least two layers of hidden units for vectors, got hidden of one")
