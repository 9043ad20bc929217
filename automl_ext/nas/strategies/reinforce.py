"""A policy trained by REINFORCE (Williams 1992; as NAS-Bench-201 and NATS-Bench use it).

π = an independent categorical distribution for every decision;  architecture ~ π
b ← the reward's moving average;  θ ← Adam of −(reward − b) · log π(architecture)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.strategies.strategy import Candidate

DRAWS = 1000  # of an architecture that the space may refuse


class Reinforce:
    """A :class:`~automl_ext.nas.strategies.strategy.Strategy`. A failed candidate's reward is the lowest so far.

    Args:
        lr: Adam's learning rate.
        decay: of the moving average, which starts at the first reward.

    Raises:
        ValueError: a negative learning rate, or a decay outside [0, 1).
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
        self.logits = start.masked_fill(impossible, -torch.inf)
        self.optimizer = torch.optim.Adam([self.logits], lr=lr)
        self.baseline: float | None = None
        self.lowest: float | None = None

    def ask(self) -> Candidate:
        policy = self.logits.softmax(-1)
        for _ in range(DRAWS):
            indices = torch.multinomial(policy, 1, generator=self.rng).flatten().tolist()
            try:
                return Candidate(self.space.decode(indices))
            except ValueError:  # not all combinations of choices are architectures in every space
                continue
        raise RuntimeError(f"the policy has drawn no architecture of the space in {DRAWS} attempts")

    def tell(self, candidate: Candidate, evaluation: Evaluation) -> None:
        reward = evaluation.score if not evaluation.failed else self.lowest
        if reward is None:  # nothing but failures as yet
            return
        self.lowest = reward if self.lowest is None else min(self.lowest, reward)
        self.baseline = reward if self.baseline is None else self.decay * self.baseline + (1 - self.decay) * reward
        self.logits.grad = -(reward - self.baseline) * self.log_policy_gradient(candidate.genotype)
        self.optimizer.step()

    def log_policy_gradient(self, genotype: Any) -> Tensor:
        """Of log π(genotype): one-hot − softmax; 0 for choices that do not exist."""
        gradient = -self.logits.softmax(-1)
        gradient[range(len(gradient)), self.space.encode(genotype)] += 1
        return gradient

    def state_dict(self) -> dict[str, Any]:
        return {
            "rng": self.rng.get_state(),
            "logits": self.logits.clone(),
            "optimizer": self.optimizer.state_dict(),
            "baseline": self.baseline,
            "lowest": self.lowest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.set_state(state["rng"])
        self.logits.copy_(state["logits"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.baseline, self.lowest = state["baseline"], state["lowest"]
