"""A policy trained by REINFORCE (Williams 1992), as in NAS-Bench-201 and NATS-Bench.

π = an independent categorical distribution for every decision;  architecture ~ π
b = moving average of the reward
update the logits θ with one Adam step on the loss −(reward − b) · log π(architecture)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.search_options import SearchConfig
from automl_ext.nas.strategies.strategy import Candidate
from automl_ext.training.checks import check_range
from automl_ext.training.optimizer_state import load_optimizer


class ReinforceSearch:
    """REINFORCE, a :class:`~automl_ext.nas.strategies.strategy.Strategy`.

    The reward is the score. A failed candidate gets the lowest reward so far.

    Args:
        lr: Adam's learning rate.
        decay: decay of the moving average of the reward, whose first value is the first reward.

    Raises:
        ValueError: ``lr`` is negative, or ``decay`` is outside [0, 1).
    """

    def __init__(self, space: Space[Any], seed: int, lr: float = 0.01, decay: float = 0.9) -> None:
        if not lr >= 0:
            raise ValueError(f"lr: expected at least 0, got {lr}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay: expected a number in [0, 1), got {decay}")
        self.space, self.decay = space, decay
        self.rng = torch.Generator().manual_seed(seed)
        choices = torch.tensor(space.num_choices).unsqueeze(1)
        impossible = torch.arange(max(space.num_choices)) >= choices  # [decisions, choices]
        start = 1e-3 * torch.randn(impossible.shape, generator=self.rng)
        self.logits = start.masked_fill(impossible, -torch.inf).requires_grad_()
        self.optimizer = torch.optim.Adam([self.logits], lr=lr)
        self.baseline: float | None = None
        self.lowest: float | None = None

    def ask(self) -> Candidate:
        policy = self.logits.detach().softmax(-1)
        indices = torch.multinomial(policy, 1, generator=self.rng).flatten().tolist()
        return Candidate(self.space.decode(indices))

    def tell(self, candidate: Candidate, evaluation: Evaluation) -> None:
        reward = evaluation.score if not evaluation.failed else self.lowest
        if reward is None:  # only failures so far
            return
        self.lowest = reward if self.lowest is None else min(self.lowest, reward)
        self.baseline = reward if self.baseline is None else self.decay * self.baseline + (1 - self.decay) * reward
        loss = -(reward - self.baseline) * self.log_probability(candidate.genotype)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def log_probability(self, genotype: Any) -> Tensor:
        """Return log π(genotype), 0-dim."""
        indices = self.space.encode(genotype)
        return torch.log_softmax(self.logits, -1)[range(len(indices)), indices].sum()

    def state_dict(self) -> dict[str, Any]:
        return {
            "rng": self.rng.get_state(),
            "logits": self.logits.detach().clone(),
            "optimizer": self.optimizer.state_dict(),
            "baseline": self.baseline,
            "lowest": self.lowest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.set_state(state["rng"])
        self.logits.detach().copy_(state["logits"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.baseline, self.lowest = state["baseline"], state["lowest"]


@dataclass
class ReinforceSearchConfig(SearchConfig):
    """Configuration of a search with a policy of independent choices, trained by REINFORCE (Williams 1992)."""

    policy_lr: float = 0.01  # Learning rate of the policy (Adam).
    baseline_decay: float = 0.9  # Decay of the moving average of rewards, in [0, 1).

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "policy_lr", above=0)
        check_range(self, "baseline_decay", low=0, below=1)

    def strategy(self, space: Space[Any]) -> ReinforceSearch:
        return ReinforceSearch(space, self.seed, self.policy_lr, self.baseline_decay)
