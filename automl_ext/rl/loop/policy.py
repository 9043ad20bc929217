"""Acting with the network of a stochastic policy, for agents that have an :class:`ActorCritic`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from automl_ext.rl.loop.learning import LearningAgent
from automl_ext.rl.networks.actor_critic import ActorCritic


class PolicyAgent(LearningAgent):
    """An agent whose policy is an :class:`ActorCritic`. Subclasses set the attributes and learn.

    Attributes:
        network: policy and value function.
        outputs: function from observations to the policy's outputs, in NumPy.
    """

    network: ActorCritic
    outputs: Callable[[np.ndarray], np.ndarray]

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return the most probable actions."""
        distribution = self.network.distribution
        return distribution.to_env(distribution.mode(self.outputs(observations)))

    def random_actions(self, observations: np.ndarray) -> np.ndarray:
        return self.sampled(observations, self.random)

    def sampled(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Sample actions from the policy with ``rng``; return them as the environment takes them."""
        distribution = self.network.distribution
        return distribution.to_env(distribution.sample(self.outputs(observations), rng))

    def policy_state(self) -> dict[str, Any]:
        return self.network.state_dict()

    def load_policy_state(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state)
