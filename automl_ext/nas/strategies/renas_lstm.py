"""The mutation controller of ReNAS (Chen et al. 2019, section 3.3): an LSTM that reads the parent and chooses a change.

tokens (decision, choice) → embedding → bidirectional LSTM → states h;  c = attention-weighted average of h
router:  P(kind | c), whether to mutate an operation or an input
targets: P(decision, choice | kind), a masked softmax over the legal targets of the kind, computed from h[decision], c
REINFORCE: one Adam step on the loss −(reward − b) · log P(change), b = moving average of the reward
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.renas_controller import Change, Indices, Parent
from automl_ext.nas.strategies.strategy import set_rng
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.seeding import seeded


class MutationPolicy(nn.Module):
    """A network that computes the log-probabilities of all changes of an architecture."""

    first: Tensor  # [decisions], first token of each decision
    kinds: Tensor  # [decisions], index of the kind of each decision

    def __init__(self, space: Space[Any], width: int = 32) -> None:
        super().__init__()
        names = sorted(set(space.kinds))
        choices = torch.tensor(space.num_choices)
        self.register_buffer("first", choices.cumsum(0) - choices, persistent=False)
        self.register_buffer("kinds", torch.tensor([names.index(kind) for kind in space.kinds]), persistent=False)
        self.embedding = nn.Embedding(int(choices.sum()), width)
        self.lstm = nn.LSTM(width, width, bidirectional=True)
        self.attention = nn.Sequential(nn.Linear(2 * width, width), nn.Tanh(), nn.Linear(width, 1, bias=False))
        self.router = nn.Linear(2 * width, len(names))
        self.heads = nn.ModuleList(nn.Linear(4 * width, int(choices.max())) for _ in names)

    def forward(self, indices: Tensor, legal: Tensor) -> Tensor:
        """Return log-probabilities [decisions, choices], −inf where ``legal`` is False.

        Args:
            indices: [decisions], the encoded parent.
            legal: bool [decisions, choices], True for the allowed changes; at least one.
        """
        states, _ = self.lstm(self.embedding(self.first + indices))  # [decisions, 2·width]
        context = (self.attention(states).softmax(0) * states).sum(0)
        features = torch.cat([states, context.expand_as(states)], -1)
        of_kind = [legal & (self.kinds == kind).unsqueeze(1) for kind in range(len(self.heads))]
        possible = torch.stack([mask.any() for mask in of_kind])
        router = self.router(context).masked_fill(~possible, -torch.inf).log_softmax(-1)
        log_p = torch.full(legal.shape, -torch.inf)
        for kind, head in enumerate(self.heads):
            mask = of_kind[kind]
            if possible[kind]:
                targets = head(features)[mask].log_softmax(0)
                log_p = log_p.masked_scatter(mask, router[kind] + targets)
        return log_p


class LSTMController:
    """The LSTM controller: a mutation policy and its training by REINFORCE.

    The reward of a child is its score minus its parent's, in standard deviations of the scores so far, clipped to ±1.
    The reward of a failed child is −1.
    """

    def __init__(self, space: Space[Any], seed: int, lr: float = 3e-3, decay: float = 0.9) -> None:
        self.rng, self.decay, self.baseline = Random(seed), decay, 0.0
        self.shape = (len(space.num_choices), max(space.num_choices))
        with seeded(seed):
            self.policy = MutationPolicy(space)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=lr)
        self.scores: list[float] = []
        # For each child in evaluation: the legal changes of its parent, and the index of the chosen one.
        self.out: deque[tuple[list[Change], int]] = deque()

    def choose(self, parent: Indices, changes: Sequence[Change]) -> Change:
        with torch.no_grad():
            policy = self.log_probabilities(parent, changes).exp().tolist()
        chosen = self.rng.choices(range(len(changes)), policy)[0]
        self.out.append((list(changes), chosen))
        return changes[chosen]

    def log_probabilities(self, parent: Indices, changes: Sequence[Change]) -> Tensor:
        """Return the log-probability of each of ``changes`` [len(changes)]."""
        decisions, choices = torch.tensor(changes).T
        legal = torch.zeros(self.shape, dtype=torch.bool)
        legal[decisions, choices] = True
        return self.policy(torch.tensor(parent), legal)[decisions, choices]

    def learn(self, child: Indices, evaluation: Evaluation, parent: Parent | None = None) -> None:
        if not evaluation.failed:
            self.scores.append(evaluation.score)
        if parent is None:
            return
        changes, chosen = self.out.popleft()
        indices, before = parent
        reward = self.reward(evaluation, before)
        log_p = self.log_probabilities(indices, changes)[chosen]
        self.optimizer.zero_grad()
        (-(reward - self.baseline) * log_p).backward()
        self.optimizer.step()
        self.baseline = self.decay * self.baseline + (1 - self.decay) * reward

    def reward(self, child: Evaluation, parent: Evaluation) -> float:
        """Return the reward of a child, from −1 to 1."""
        if child.failed:
            return -1.0
        if parent.failed:
            return 1.0
        spread = torch.tensor(self.scores, dtype=torch.float64).std(correction=0).item()
        return min(max((child.score - parent.score) / max(spread, 1e-12), -1.0), 1.0)

    def state_dict(self) -> dict[str, Any]:
        return {
            "rng": self.rng.getstate(),
            "policy": dict(self.policy.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "baseline": self.baseline,
            "scores": list(self.scores),
            "out": list(self.out),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_rng(self.rng, state["rng"])
        self.policy.load_state_dict(state["policy"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.baseline, self.scores = state["baseline"], list(state["scores"])
        self.out = deque(([(d, k) for d, k in changes], chosen) for changes, chosen in state["out"])
