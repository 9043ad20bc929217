"""Behavior cloning (Pomerleau 1991): supervised learning of a policy from recorded episodes.

repeat:
    sample (s, a, G) from the episodes; G: discounted return until the end of the episode
    one step of Adam on  −log π(a|s) + vf_coef (G − V(s))²

V is not needed to act. A policy-gradient agent that starts from the clone (``--init-policy``) starts with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from automl_ext.rl.loop import loop
from automl_ext.rl.loop.policy import PolicyAgent
from automl_ext.rl.networks.actor_critic import ActorCritic, acting
from automl_ext.rl.networks.parameters import clipped_gradient, flatten_parameters
from automl_ext.rl.offline.agent import OfflineAgent, OfflineConfig
from automl_ext.rl.replay.uniform import Batch
from automl_ext.training.checks import check_range
from automl_ext.training.optimizer_state import load_optimizer


@dataclass
class BCConfig(OfflineConfig):
    """Configuration of behavior cloning. The network is that of A2C with the same ``hidden`` and ``normalize``."""

    total_steps: int = 2_000
    """Number of gradient steps."""
    eval_every: int = 500
    """Gradient steps between evaluations in the environment."""
    vf_coef: float = 0.5
    """Weight of the value loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "vf_coef", low=0)


class BC(PolicyAgent, OfflineAgent):
    """The agent of behavior cloning; see :class:`automl_ext.rl.offline.agent.OfflineAgent`.

    Attributes:
        network: policy and value function.

    Raises:
        UserError: unsupported observation or action space.
    """

    algorithm = "bc"

    def __init__(self, config: BCConfig, envs: Any = None) -> None:
        super().__init__(config, envs)
        with torch.random.fork_rng(devices=[]):  # leave the caller's random state unchanged
            torch.manual_seed(config.seed)
            network = ActorCritic(self.envs.observation_space, self.envs.action_space, config.hidden, config.normalize)
        self.network = network.to(self.device)
        self.parameters = flatten_parameters(self.network)
        self.optimizer = torch.optim.Adam([self.parameters], config.lr)
        self.outputs = acting(self.network, self.device)

    def window(self, longest: int) -> int:
        return longest  # returns until the end of the episode; a truncated one bootstraps from V

    def update(self, batch: Batch) -> dict[str, Tensor]:
        loss, metrics = self.loss(batch)
        clipped_gradient(loss, self.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        return metrics

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute −log π(a|s) + vf_coef (G − V(s))², averaged over the batch, and metrics."""
        outputs, values = self.network(batch.observations)
        with torch.no_grad():
            returns = batch.returns + batch.discounts * self.network(batch.next_observations)[1]
        policy = -self.network.distribution.log_probs(outputs, batch.actions).mean()
        value = (returns - values).square().mean()
        return policy + self.config.vf_coef * value, {"policy_loss": policy.detach(), "value_loss": value.detach()}

    def update_statistics(self, observations: Tensor) -> None:
        self.network.saw(observations)

    def learning_state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_learning_state(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        load_optimizer(self.optimizer, state["optimizer"])


def train(
    config: BCConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Clone a policy in a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("bc", BC, config, out, resume, stop_after)
