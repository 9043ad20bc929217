"""CQL: conservative Q-learning (Kumar et al. 2020, https://arxiv.org/abs/2006.04779), for discrete actions.

repeat, on batches of recorded transitions:
    double DQN's loss  +  α E[log Σ_a exp Q(s, a) − Q(s, a_data)]      CQL(H), eq. 4
Q_target ← Q every ``target_update_interval`` gradient steps

The added term lowers the values of actions that the data do not contain. With α = 0 this is offline double DQN.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from automl_ext.rl.dqn.agent import discrete
from automl_ext.rl.dqn.config import DQNConfig
from automl_ext.rl.dqn.learner import QLearner
from automl_ext.rl.loop import loop
from automl_ext.rl.loop.checks import check_hidden
from automl_ext.rl.offline.agent import OfflineAgent, OfflineConfig
from automl_ext.rl.replay.uniform import Batch
from automl_ext.training.checks import check_range
from automl_ext.training.seeding import derived_seed


@dataclass
class CQLConfig(OfflineConfig):
    """Configuration of CQL."""

    alpha: float = 1.0
    """Weight of the conservative term. 0: offline double DQN."""
    target_update_interval: int = 100
    """Gradient steps between updates of the target network."""
    dueling: bool = False
    """Separate streams for the state value and the advantages."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "alpha", low=0)
        check_range(self, "target_update_interval", low=1)
        check_hidden(self, units=2, layers=1)


def conservative_loss(q: Tensor, actions: Tensor) -> Tensor:
    """Compute E[log Σ_a exp Q(s, a) − Q(s, a_data)], from q [N, A] and actions int64 [N]; 0-dim, at least 0."""
    return (q.logsumexp(1) - q.gather(1, actions.unsqueeze(1)).squeeze(1)).mean()


class ConservativeTerm:
    """An :class:`~automl_ext.rl.loop.extensions.ExtraLoss` of Q-learning: α times :func:`conservative_loss`.

    Attributes:
        measured: the last value, without α.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self.measured = torch.zeros(())

    def loss(self, network: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        value = conservative_loss(network(batch.observations), batch.actions)
        self.measured = value.detach()
        return self.alpha * value, {"conservative_loss": self.measured}

    def step(self) -> None:
        """Do nothing: the term has no parameters."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""


class CQL(OfflineAgent):
    """The CQL agent; see :class:`automl_ext.rl.offline.agent.OfflineAgent`.

    Raises:
        UserError: an action space that is not Discrete, or an unsupported observation space.
    """

    algorithm = "cql"

    def __init__(self, config: CQLConfig, envs: Any = None) -> None:
        super().__init__(config, envs)
        self.actions, self._first = discrete(self.envs.action_space)
        seeds = derived_seed(config.seed, 0), derived_seed(config.seed, 1)
        self.learner = QLearner(learner_config(config), self.envs.observation_space, self.actions, seeds)
        self.term = ConservativeTerm(config.alpha)
        self.learner.extra_losses = (*self.learner.extra_losses, self.term)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        learner = self.learner
        if self.envs.steps % self.config.target_update_interval == 0:
            learner.sync_target()
        loss, _ = learner.step(batch.observations, batch.actions, learner.targets(batch), None, batch)
        return {"loss": loss, "conservative_loss": self.term.measured}

    def update_statistics(self, observations: Tensor) -> None:
        self.learner.update_statistics(observations)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return the greedy actions."""
        return self.learner.best_actions(observations).numpy(force=True) + self._first

    def random_actions(self, observations: np.ndarray) -> np.ndarray:
        """Return the greedy actions: CQL learns no other policy."""
        return self.act(observations)

    def policy_state(self) -> dict[str, Any]:
        return self.learner.online.state_dict()

    def load_policy_state(self, state: dict[str, Any]) -> None:
        self.learner.online.load_state_dict(state)

    def learning_state(self) -> dict[str, Any]:
        return self.learner.state_dict()

    def load_learning_state(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state)


def learner_config(config: CQLConfig) -> DQNConfig:
    """Return the settings of the Q-learner: double DQN."""
    names = ("seed", "device", "hidden", "lr", "max_grad_norm", "gamma", "batch_size", "dueling", "normalize")
    return DQNConfig(double=True, **{name: getattr(config, name) for name in names})


def train(
    config: CQLConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train CQL in a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("cql", CQL, config, out, resume, stop_after)
