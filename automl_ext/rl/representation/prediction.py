"""Prediction of the next latent state, an auxiliary objective for the encoder of a Q-network.

z = e(s);  p = q(g(h(z, a)));  t = g_m(e_m(s′))        h: transition model; g: projection; q: predictor
spr:           −cos(p, t)                              Schwarzer et al. 2021, https://arxiv.org/abs/2007.05929, eq. 4
contrastive:   −log softmax over the batch of p · t / τ    InfoNCE: van den Oord et al. 2018, eq. 4

e_m and g_m are moving averages of e and g and get no gradient. Encoding unpredictable
parts of an observation, such as noise, does not lower the loss, so the encoder learns to leave them out.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from automl_ext.rl.networks.q_network import QNetwork
from automl_ext.rl.replay.uniform import Batch
from automl_ext.training.errors import UserError
from automl_ext.training.optimizer_state import load_optimizer

Auxiliary = Literal["none", "spr", "contrastive"]
UNITS = 64  # of the projection
MOST_HIDDEN = 256  # hidden units of h: an image has thousands of features, and h would cost more than the agent
MOMENTUM = 0.99  # of the moving averages, as in SPR without augmentation
TEMPERATURE = 0.1  # τ


def spr_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the negative cosine similarity of predictions and targets [N, units], in [−1, 1], averaged."""
    return -F.cosine_similarity(predictions, targets).mean()


def contrastive_loss(predictions: Tensor, targets: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the InfoNCE loss in nats: the cross-entropy of finding each prediction's target among all targets.

    Args:
        predictions, targets: [N, units]; they are normalized, so that similarities are cosines.
        temperature: τ.
    """
    similarities = F.normalize(predictions) @ F.normalize(targets).t()
    return F.cross_entropy(similarities / temperature, torch.arange(len(predictions), device=predictions.device))


LOSSES = {"spr": spr_loss, "contrastive": contrastive_loss}


class LatentPrediction:
    """The objective as an :class:`~automl_ext.rl.loop.extensions.ExtraLoss` of Q-learning.

    SPR predicts five steps from a sequence and projects with the first layer of the Q-network's head. Batches of a
    replay hold one window each, so this predicts one step, with a projection of its own. If ``n_step`` is above 1,
    s′ is up to ``n_step`` steps later, and h gets the first action only.

    Args:
        objective: "spr" or "contrastive".
        weight: weight of the loss.
        network: the online network; its body is the encoder e.
        lr: learning rate of Adam for h, g and q.
        seed: seed of their initial weights.

    Raises:
        UserError: the network's body has no parameters.
    """

    def __init__(self, objective: Auxiliary, weight: float, network: QNetwork, lr: float, seed: int) -> None:
        encoder, features = network.body, network.body.features
        device = next(network.parameters()).device
        if next(encoder.parameters(), None) is None:
            raise UserError("auxiliary: expected at least two layers of hidden units for vectors, got hidden of one")
        self.objective, self.weight, self.actions = LOSSES[objective], weight, network.actions
        self._name = objective
        with torch.random.fork_rng(devices=[]):  # initial weights come from the global generator
            torch.manual_seed(seed)
            hidden = min(features, MOST_HIDDEN)
            model = nn.Sequential(
                nn.Linear(features + network.actions, hidden), nn.ReLU(), nn.Linear(hidden, features), nn.ReLU()
            )
            self.models = nn.ModuleDict(
                {"model": model, "projection": nn.Linear(features, UNITS), "predictor": nn.Linear(UNITS, UNITS)}
            ).to(device)
        self.optimizer = torch.optim.Adam(self.models.parameters(), lr, fused=True)
        self.averages = {name: p.detach().clone() for name, p in self._averaged(network)}

    def _averaged(self, network: QNetwork) -> list[tuple[str, nn.Parameter]]:
        named = [*network.body.named_parameters(prefix="encoder")]
        return [*named, *self.models["projection"].named_parameters(prefix="projection")]

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted loss, and the loss without the weight as a metric."""
        assert isinstance(network, QNetwork)
        targets = self.targets(network, batch.next_observations)
        z, actions = network.body(batch.observations), F.one_hot(batch.actions, self.actions)
        predicted = self.models["model"](torch.cat([z, actions], 1))
        loss = self.objective(self.models["predictor"](self.models["projection"](predicted)), targets)
        return self.weight * loss, {self._name: loss.detach()}

    @torch.no_grad()
    def targets(self, network: QNetwork, observations: Tensor) -> Tensor:
        """Update the moving averages, then compute g_m(e_m(s′)), [N, units]."""
        online = [p.detach() for _, p in self._averaged(network)]
        torch._foreach_lerp_(list(self.averages.values()), online, 1 - MOMENTUM)
        parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "projection": {}}
        for name, value in self.averages.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        z = functional_call(network.body, parts["encoder"], observations)  # with the network's own statistics
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


def auxiliary_losses(config: Any, network: QNetwork, seed: int) -> list[LatentPrediction]:
    """Make the auxiliary losses of the options ``auxiliary`` and ``auxiliary_weight`` of a configuration.

    Raises:
        UserError: vector observations and a single hidden layer: there is no encoder.
    """
    if config.auxiliary == "none":
        return []
    return [LatentPrediction(config.auxiliary, config.auxiliary_weight, network, config.lr, seed)]
