"""The recurrent state-space model (Hafner et al. 2019, "Learning latent dynamics for planning from pixels").

A state is a recurrent part h and a stochastic part s:

    h_t = GRU(h_{t-1}, ELU(W [s_{t-1}, a_{t-1}]))
    prior      p(s_t | h_t)         what is expected
    posterior  q(s_t | h_t, o_t)    what is so, once it is seen
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.rl.dreamer.fused.mlp import mlp
from automl_ext.rl.dreamer.fused.recurrence import MIN_STD, observed_steps


class Normal(NamedTuple):
    """Independent normal distributions."""

    mean: Tensor
    std: Tensor


class Unrolled(NamedTuple):
    """States along observed sequences.

    Attributes:
        features: [T, B, deter + stoch], h and a sample of the posterior: what everything else sees of a state.
        posterior, prior: of s, [T, B, stoch].
    """

    features: Tensor
    posterior: Normal
    prior: Normal


class RSSM(nn.Module):
    """Layers that read two things are two layers whose outputs are added: so the part that is known for all times can
    be computed for all times at once.

    Args:
        actions: numbers per action.
        embedding: numbers per encoded observation.
        deter, stoch: sizes of h and s.
        hidden: units between them.
    """

    def __init__(self, actions: int, embedding: int, deter: int, stoch: int, hidden: int) -> None:
        super().__init__()
        self.deter, self.stoch = deter, stoch
        self.from_stoch = nn.Linear(stoch, hidden, bias=False)
        self.from_action = nn.Linear(actions, hidden)
        self.cell = nn.GRUCell(hidden, deter)
        self.prior_hidden = nn.Linear(deter, hidden)
        self.prior_out = nn.Linear(hidden, 2 * stoch)
        self.from_deter = nn.Linear(deter, hidden, bias=False)
        self.from_embedding = nn.Linear(embedding, hidden)
        self.posterior_out = nn.Linear(hidden, 2 * stoch)

    def initial(self, batch: int) -> tuple[Tensor, Tensor]:
        """h and s before an episode, zeros [B, ·]."""
        zeros = self.from_stoch.weight.new_zeros
        return zeros(batch, self.deter), zeros(batch, self.stoch)

    def step(self, deter: Tensor, stoch: Tensor, from_action: Tensor) -> Tensor:
        """The next h, [B, deter]; ``from_action`` is what ``self.from_action`` made of the action."""
        return self.cell(F.elu(self.from_stoch(stoch) + from_action), deter)

    def prior(self, deter: Tensor) -> Normal:
        """Of h, [..., deter]."""
        layers = [(layer.weight, layer.bias) for layer in (self.prior_hidden, self.prior_out)]
        return normal(mlp(deter, layers))

    def posterior(self, deter: Tensor, from_embedding: Tensor) -> Normal:
        """Of h, [N, deter], and what ``self.from_embedding`` made of the encoded observation."""
        return normal(self.posterior_out(F.elu(self.from_deter(deter) + from_embedding)))

    def observe(self, embeddings: Tensor, actions: Tensor, noise: Tensor) -> Unrolled:
        """Go along sequences, each from the initial state.

        Args:
            embeddings: of the observations, [T, B, embedding].
            actions: [T, B, A], row t the one before observation t.
            noise: standard normal, [T, B, stoch].
        """
        features, outs = observed_steps(self, self.from_action(actions), self.from_embedding(embeddings), noise)
        return Unrolled(features, normal(outs), self.prior(features[..., : self.deter]))


def normal(outputs: Tensor) -> Normal:
    """Mean and standard deviation (at least 0.1) from a layer's outputs [..., 2 n]."""
    mean, raw = outputs.chunk(2, -1)
    return Normal(mean, F.softplus(raw.contiguous()) + MIN_STD)  # torch's takes five times as long on a part of a row
