"""Count-based exploration: b(s′) = 1 / √n(s′), where n counts the visits (Strehl & Littman 2008; Tang et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import gymnasium
import numpy as np
import torch
from torch import Tensor
from tyro.conf import arg

from automl_ext.rl.envs.packed import check_not_packed
from automl_ext.rl.envs.vector import Step
from automl_ext.rl.extras.bonus import ObservationHash, add_bonus
from automl_ext.rl.extras.requirements import check_options
from automl_ext.rl.loop.seams import Seam
from automl_ext.training.seeding import derived_seed


@dataclass
class CountBonus:
    """A reward of ``weight`` / √n(s′) for the next observation s′, which was visited n times; see :func:`add_bonus`."""

    name: ClassVar[str] = "count-bonus"
    seams: ClassVar[frozenset[Seam]] = frozenset({"steps", "after"})

    weight: Annotated[float, arg(name="count-bonus.weight")] = 0.1
    """Weight of the bonus 1 / √(visits of the next observation); 0: none."""
    once: Annotated[bool, arg(name="count-bonus.once")] = False
    """Give the bonus only at the first visit of an observation in an episode; not in Q-learning."""

    def __post_init__(self) -> None:
        check_options(self, "weight", low=0)

    def attach(self, agent: Any) -> None:
        check_not_packed(agent.spaces[0], self.name)
        visits = Visits(agent.envs.observation_space, derived_seed(agent.config.seed, 6))
        add_bonus(agent, self.name, self.weight, self.once, visits)


class Visits:
    """1 / √n(s′) for the next observation s′, and 1 if it was never visited.

    Args:
        space, seed: see :class:`~automl_ext.rl.extras.bonus.ObservationHash`.
    """

    def __init__(self, space: gymnasium.Space, seed: int = 0) -> None:
        self.keys = ObservationHash(space, seed)
        self.counts: dict[int, int] = {}

    def observe(self, step: Step) -> None:
        """Count the next observations of one step of every environment."""
        for key in self.keys(step.next_observations[step.valid]).tolist():
            self.counts[key] = self.counts.get(key, 0) + 1

    def __call__(self, observations: Tensor) -> Tensor:
        """Return the bonus of next observations, float32 [N]."""
        counts = [self.counts.get(key, 1) for key in self.keys(observations.numpy(force=True)).tolist()]
        return torch.tensor(counts, dtype=torch.float32, device=observations.device).rsqrt()

    def state_dict(self) -> dict[str, Any]:
        keys = np.fromiter(self.counts.keys(), np.uint64, len(self.counts)).view(np.int64)
        return {"keys": torch.from_numpy(keys), "counts": torch.tensor(list(self.counts.values()), dtype=torch.int64)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        keys = state["keys"].numpy().view(np.uint64)
        self.counts = dict(zip(keys.tolist(), state["counts"].tolist(), strict=True))
