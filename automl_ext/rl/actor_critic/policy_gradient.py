"""Code shared by REINFORCE, A2C and PPO: configuration, network, the gradient step, acting and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.agent import TrainConfig
from automl_ext.rl.loop.checks import check_hidden, check_max_grad_norm
from automl_ext.rl.loop.extensions import ExtraLoss, load_states, states
from automl_ext.rl.loop.learning import LearningAgent
from automl_ext.rl.networks.actor_critic import ActorCritic
from automl_ext.rl.networks.grouped import GroupedActorCritic, Separate
from automl_ext.rl.networks.parameters import clip_norm
from automl_ext.training.checks import check_range
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.seeding import numpy_generator_state, set_numpy_generator_state


@dataclass
class PolicyGradientConfig(TrainConfig):
    """Configuration that the policy-gradient algorithms share.

    Raises:
        ValueError: a number out of range.
    """

    n_envs: int = 8  # Number of environments.
    gamma: float = 0.99  # Discount factor.
    lr: float = 3e-3  # Learning rate.
    vf_coef: float = 0.5  # Weight of the value loss.
    ent_coef: float = 0.0  # Weight of the entropy bonus.
    max_grad_norm: float = 0.5  # Gradient norm to clip at; inf: no clipping.
    hidden: tuple[int, ...] = (64, 64)  # Units of each hidden layer.
    normalize: bool = False  # Normalize observations by their running mean and standard deviation.
    separate: Separate = "none"  # What each of several agents or tasks has for itself: none, heads or networks.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "gamma", low=0, high=1)
        check_range(self, "lr", above=0)
        check_range(self, "vf_coef", "ent_coef", low=0)
        check_max_grad_norm(self)
        check_hidden(self)


class PolicyGradientAgent(LearningAgent):
    """Acting and checkpoints of an agent with an :class:`ActorCritic`. Subclasses set the attributes and learn.

    Attributes:
        envs: training environments. The agent owns them.
        network: policy and value function.
        parameters: all parameters of the network as one vector.
        optimizer: optimizer of ``parameters``.
        outputs: function from observations to the policy's outputs, in NumPy.
        rng: random generator of the actions.
        extra_losses: terms that are added to the loss; empty unless set after construction.
    """

    envs: Envs
    network: ActorCritic
    parameters: torch.nn.Parameter
    optimizer: torch.optim.Optimizer
    outputs: Callable[[np.ndarray], np.ndarray]
    rng: np.random.Generator
    extra_losses: Sequence[ExtraLoss] = ()

    def sample(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sample actions; return them as sampled and as the environment takes them."""
        distribution = self.network.distribution
        actions = distribution.sample(self.outputs(observations), self.rng)
        return actions, distribution.to_env(actions)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return the most probable actions."""
        distribution = self.network.distribution
        return distribution.to_env(distribution.mode(self.outputs(observations)))

    def random_actions(self, observations: np.ndarray) -> np.ndarray:
        distribution = self.network.distribution
        return distribution.to_env(distribution.sample(self.outputs(observations), self.random))

    def policy_state(self) -> dict[str, Any]:
        return self.network.state_dict()

    def load_policy_state(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": numpy_generator_state(self.rng),
            "envs": self.envs.state_dict(),
            "extra_losses": states(self.extra_losses),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        load_optimizer(self.optimizer, state["optimizer"])
        set_numpy_generator_state(self.rng, state["rng"])
        self.envs.load_state_dict(state["envs"])
        load_states(self.extra_losses, state.get("extra_losses", []))


def make_network(config: PolicyGradientConfig, envs: Envs, device: torch.device, popart: bool = False) -> ActorCritic:
    """Build policy and value function, with initial weights from ``config.seed``.

    Args:
        config: settings.
        envs: have the spaces.
        device: device of the network.
        popart: normalize the values by PopArt.

    Raises:
        UserError: unsupported observation or action space.
    """
    with torch.random.fork_rng(devices=[]):  # leave the caller's random state unchanged
        torch.manual_seed(config.seed)
        spaces = envs.observation_space, envs.action_space
        if popart or config.separate != "none" or config.env.central_critic:
            network: ActorCritic = GroupedActorCritic(*spaces, config.hidden, config.normalize, config.separate, popart)
        else:
            network = ActorCritic(*spaces, config.hidden, config.normalize)
    return network.to(device)


def clipped_gradient(loss: Tensor, parameters: torch.nn.Parameter, max_norm: float) -> Tensor:
    """Set ``parameters.grad`` to the gradient of ``loss``, clipped to ``max_norm``; return its norm before clipping."""
    gradient = parameters.grad  # the gradients of the network's parameters are views of it
    assert gradient is not None
    gradient.zero_()
    loss.backward()
    return clip_norm(gradient, max_norm)
