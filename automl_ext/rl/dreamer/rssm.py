"""The recurrent state-space model (Hafner et al. 2019, "Learning latent dynamics for planning from pixels").

A state is a deterministic, recurrent part h and a stochastic part s:

    h_t = GRU(h_{t-1}, ELU(W [s_{t-1}, a_{t-1}]))
    prior      p(s_t | h_t)         before observing o_t
    posterior  q(s_t | h_t, o_t)    after observing o_t
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.rl.dreamer.fused.mlp import mlp
from automl_ext.rl.dreamer.fused.recurrence import MIN_STD, ImaginationWeights, ObservationWeights, observed_steps


class Normal(NamedTuple):
    """Independent normal distributions."""

    mean: Tensor
    std: Tensor


class Unrolled(NamedTuple):
    """States along observed sequences.

    Attributes:
        features: h and a sample of the posterior, [T, B, deter + stoch]: the inputs of all heads and of the policy.
        posterior, prior: distributions of s, [T, B, stoch].
    """

    features: Tensor
    posterior: Normal
    prior: Normal


class RSSM(nn.Module):
    """The layers of the RSSM.

    A layer with two inputs is two layers whose outputs are added. The part whose input is known for all time steps is
    then computed for all of them at once.

    Args:
        actions: numbers per action.
        embedding: numbers per encoded observation.
        deter, stoch: sizes of h and s.
        hidden: units of the hidden layers.
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
        """Return h and s at the start of an episode, zeros [B, ·]."""
        zeros = self.from_stoch.weight.new_zeros
        return zeros(batch, self.deter), zeros(batch, self.stoch)

    def step(self, deter: Tensor, stoch: Tensor, from_action: Tensor) -> Tensor:
        """Return the next h, [B, deter]; ``from_action`` is ``self.from_action(action)``."""
        return self.cell(F.elu(self.from_stoch(stoch) + from_action), deter)

    def prior(self, deter: Tensor) -> Normal:
        """Return p(s | h) for h [..., deter]."""
        layers = [(layer.weight, layer.bias) for layer in (self.prior_hidden, self.prior_out)]
        return normal(mlp(deter, layers))

    def posterior(self, deter: Tensor, from_embedding: Tensor) -> Normal:
        """Return q(s | h, o) for h [N, deter]; ``from_embedding`` is ``self.from_embedding(embedding)``."""
        return normal(self.posterior_out(F.elu(self.from_deter(deter) + from_embedding)))

    def observe(self, embeddings: Tensor, actions: Tensor, noise: Tensor) -> Unrolled:
        """Compute the states along observed sequences, starting from the initial state.

        Args:
            embeddings: encoded observations, [T, B, embedding].
            actions: [T, B, A]; row t is the action before observation t.
            noise: standard normal, [T, B, stoch].
        """
        from_actions, from_embeddings = self.from_action(actions), self.from_embedding(embeddings)
        features, outs = observed_steps(self.observation_weights(), from_actions, from_embeddings, noise)
        return Unrolled(features, normal(outs), self.prior(features[..., : self.deter]))

    def imagination_weights(self) -> ImaginationWeights:
        """Return the weights of :func:`~automl_ext.rl.dreamer.fused.recurrence.imagined_step`."""
        action, cell, hidden, out = self.from_action, self.cell, self.prior_hidden, self.prior_out
        return ImaginationWeights(
            stoch=self.from_stoch.weight,
            action=action.weight,
            action_bias=action.bias,
            input=cell.weight_ih,
            input_bias=cell.bias_ih,
            state=cell.weight_hh,
            state_bias=cell.bias_hh,
            hidden=hidden.weight,
            hidden_bias=hidden.bias,
            out=out.weight,
            out_bias=out.bias,
        )

    def observation_weights(self) -> ObservationWeights:
        """Return the weights of :func:`~automl_ext.rl.dreamer.fused.recurrence.observed_steps`."""
        cell, out = self.cell, self.posterior_out
        return ObservationWeights(
            stoch=self.from_stoch.weight,
            input=cell.weight_ih,
            state=cell.weight_hh,
            deter=self.from_deter.weight,
            out=out.weight,
            input_bias=cell.bias_ih,
            state_bias=cell.bias_hh,
            out_bias=out.bias,
        )


def normal(outputs: Tensor) -> Normal:
    """Split a layer's outputs [..., 2 n] into means and standard deviations, which are at least 0.1."""
    mean, raw = outputs.chunk(2, -1)
    return Normal(mean, F.softplus(raw.contiguous()) + MIN_STD)  # softplus is slow on memory that is not contiguous
