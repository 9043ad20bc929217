"""CQL: conservative Q-learning (Kumar et al. 2020, https://arxiv.org/abs/2006.04779), for discrete actions.

repeat, on batches of recorded transitions:
    double DQN's loss  +  α E[log Σ_a exp Q(s, a) − Q(s, a_data)]      CQL(H), eq. 4
Q_target ← Q every ``target_update_interval`` gradient steps

The added term lowers the values of actions that the data do not contain. With α = 0 this is offline double DQN.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl_ext.ops.targets import td_targets
from automl_ext.rl.algorithms.dqn import q_loss
from automl_ext.rl.loop.offline import OfflineAgent, OfflineConfig
from automl_ext.rl.networks.action_spaces import discrete
from automl_ext.rl.networks.parameters import FlatAdam, check_hidden, clipped_gradient, flatten_parameters
from automl_ext.rl.networks.q_network import QNetwork
from automl_ext.rl.replay.uniform import Batch
from automl_ext.training.checks import check_range
from automl_ext.training.seeding import seeded


@dataclass
class CQLConfig(OfflineConfig):
    """Configuration of CQL."""

    conservative_weight: float = 1.0  # Weight α of the conservative term. 0: offline double DQN.
    target_update_interval: int = 100  # Gradient steps between updates of the target network.
    dueling: bool = False  # Separate streams for the state value and the advantages.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "conservative_weight", low=0)
        check_range(self, "target_update_interval", low=1)
        check_hidden(self, units=2, layers=1)


def conservative_loss(q: Tensor, actions: Tensor) -> Tensor:
    """Compute E[log Σ_a exp Q(s, a) − Q(s, a_data)], from q [N, A] and actions int64 [N]; 0-dim, at least 0."""
    return (q.logsumexp(1) - q.gather(1, actions.unsqueeze(1)).squeeze(1)).mean()


class CQL(OfflineAgent):
    """The CQL agent; see :class:`automl_ext.rl.loop.offline.OfflineAgent`.

    Attributes:
        online, target: the Q-networks.

    Raises:
        UserError: an action space that is not Discrete, or an unsupported observation space.
    """

    algorithm = "cql"

    def __init__(self, config: CQLConfig, envs: Any = None) -> None:
        super().__init__(config, envs)
        actions, self._first = discrete(self.envs.action_space)
        with seeded(config.seed):
            space, normalize = self.envs.observation_space, config.normalize_observations
            network = QNetwork(space, actions, config.hidden, dueling=config.dueling, normalize=normalize)
        self.online = network.to(self.device)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.target.body.norm = self.online.body.norm
        self.networks = {"online": self.online, "target": self.target}
        self.parameters, self._target_parameters = flatten_parameters(self.online), flatten_parameters(self.target)
        self.optimizer = FlatAdam(self.parameters, config.lr)
        self.attach_extras()

    def update(self, batch: Batch) -> dict[str, Tensor]:
        config = self.config
        if self.envs.steps % config.target_update_interval == 0:
            self._target_parameters.data.copy_(self.parameters.data)
        q = self.online(batch.observations)
        with torch.no_grad():  # double Q-learning: the online network chooses the next action
            next_q, online_q = self.target(batch.next_observations), self.online(batch.next_observations)
            targets = td_targets(batch.returns, next_q, batch.terminated, batch.discounts, next_q_online=online_q)
        loss, _ = q_loss(q, batch.actions, targets)
        conservative = conservative_loss(q, batch.actions)
        clipped_gradient(loss + config.conservative_weight * conservative, self.parameters, config.max_grad_norm)
        self.optimizer.step()
        return {"loss": loss.detach(), "conservative_loss": conservative.detach()}

    @torch.inference_mode()
    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return the greedy actions."""
        q = self.online(torch.as_tensor(observations, device=self.device))
        return q.argmax(1).numpy(force=True) + self._first

    def random_actions(self, observations: np.ndarray) -> np.ndarray:
        """Return the greedy actions: CQL learns no other policy."""
        return self.act(observations)

    def policy_state(self) -> dict[str, Any]:
        return self.online.state_dict()

    def load_policy_state(self, state: dict[str, Any]) -> None:
        self.online.load_state_dict(state)
