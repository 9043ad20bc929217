"""Acting with a stochastic policy: the base of REINFORCE, A2C, PPO and behavior cloning."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from automl_ext.rl.envs.groups import Separate, names_of
from automl_ext.rl.envs.packed import observation_bytes
from automl_ext.rl.envs.reward_scale import RewardScale
from automl_ext.rl.envs.rollouts import Rollout, to_rollout
from automl_ext.rl.envs.transforms import add_transform
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.agent import Agent
from automl_ext.rl.loop.train_config import TrainConfig, envs_of
from automl_ext.rl.networks.actor_critic import ActorCritic
from automl_ext.rl.networks.body import use_bfloat16
from automl_ext.rl.networks.distributions import DiagonalGaussian
from automl_ext.rl.networks.encoders import Kind
from automl_ext.rl.networks.fused import FusedPolicy
from automl_ext.rl.networks.grouped import GroupedActorCritic
from automl_ext.rl.networks.modes import evaluating
from automl_ext.rl.networks.parameters import check_hidden, check_max_grad_norm, flatten_parameters
from automl_ext.training.checks import check_range
from automl_ext.training.errors import UserError
from automl_ext.training.machine.device import choose_device
from automl_ext.training.machine.memory import check_memory
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.search_space import Range
from automl_ext.training.seeding import derived_seed, generator, seeded

REWARD_MOMENTS = "reward_moments"  # key of the statistics of rewards in a policy's state


@dataclass
class PolicyConfig(TrainConfig):
    """The options of the network of a policy-gradient agent.

    Raises:
        ValueError: a number out of range.
    """

    n_envs: int = 8  # Number of environments.
    max_grad_norm: Annotated[float, Range(0.3, 5.0, log=True)] = 0.5  # Gradient norm to clip at; inf: no clipping.
    hidden: tuple[int, ...] = (64, 64)  # Units of each hidden layer.
    normalize_observations: bool = False  # Normalize observations by their running mean and standard deviation.
    normalize_rewards: bool = False  # Divide rewards by the running standard deviation of the discounted returns.
    body: Kind = "auto"  # Convolutions for images: of Nature DQN, one small one, or IMPALA's residual network.
    layer_norm: bool = False  # Normalize the outputs of every hidden layer, before its activation.
    bfloat16: bool = False
    """Compute convolutions, and the hidden layers after them, in bfloat16; weights stay float32. Faster on recent
    processors and GPUs."""
    initial_std: float = 1.0  # Initial standard deviation of Box actions, relative to half the width of the box.
    eval_sample: bool = False  # Sample the actions in evaluations. Default: take the most probable ones.
    separate: Separate = "none"  # Layers that each agent or task has for itself: none, its heads, or whole networks.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_max_grad_norm(self)
        check_hidden(self)
        check_range(self, "initial_std", above=0)


class PolicyAgent(Agent):
    """An agent whose policy is an :class:`ActorCritic`. Subclasses set the attributes and learn.

    Attributes:
        device: device of the network.
        network: policy and value function.
        rng: random generator of the actions in training.
        eval_rng: random generator of the actions in evaluations; each evaluation begins with the same state.
        encoder_modules: the modules of the user's encoder. They are in evaluation mode while the agent acts.
    """

    device: torch.device
    network: ActorCritic
    rng: torch.Generator
    eval_rng: torch.Generator
    encoder_modules: Sequence[nn.Module] = ()

    def sample(self, observations: np.ndarray, rng: torch.Generator | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Sample actions a ~ π(·|s) for observations [B, ...], with the generator of the training or ``rng``.

        Callers must turn gradients off; doing it here would take time in every step. Returns the actions as sampled,
        and as the environment takes them.
        """
        distribution = self.network.distribution
        outputs = self.outputs(observations)
        actions = distribution.sample(outputs, self.rng if rng is None else rng).numpy(force=True)
        return actions, distribution.to_env(actions)

    @torch.inference_mode()
    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return the most probable actions."""
        distribution = self.network.distribution
        return distribution.to_env(distribution.mode(self.outputs(observations)).numpy(force=True))

    def outputs(self, observations: np.ndarray) -> Tensor:
        """Compute the parameters of π(·|s), with which the agent acts, for observations [B, ...]."""
        seen = torch.as_tensor(observations, device=self.device)
        if not self.encoder_modules:
            return self.network.policy(seen)
        with evaluating(self.encoder_modules):
            return self.network.policy(seen)

    @torch.inference_mode()
    def random_actions(self, observations: np.ndarray) -> np.ndarray:
        return self.sample(observations, self._predicting)[1]

    @functools.cached_property
    def _predicting(self) -> torch.Generator:
        """Generator of ``predict``, which must not change that of the training."""
        return generator(derived_seed(self.config.seed, 5), self.device)

    def begin(self, starting: np.ndarray) -> None:
        if starting.all():  # a new evaluation
            self.eval_rng = generator(derived_seed(self.config.seed, 8), self.device)

    @torch.inference_mode()
    def evaluation_actions(self, observations: np.ndarray) -> np.ndarray:
        """Return the most probable actions, or sampled ones with ``config.eval_sample``, without use of ``rng``."""
        sampled = getattr(self.config, "eval_sample", False)
        return self.sample(observations, self.eval_rng)[1] if sampled else self.act(observations)

    def policy_state(self) -> dict[str, Any]:
        return self.network.state_dict()

    def load_policy_state(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state)


class OnPolicyAgent(PolicyAgent):
    """A :class:`PolicyAgent` that learns from its own rollouts. Subclasses set the optimizer and attach the extras.

    Args:
        config: settings, and the environments to make if ``envs`` is None.
        envs: training environments. The agent owns them.
        encoder: a network from observations to features, see :class:`~automl_ext.rl.networks.body.Body`; it is trained
            with the policy. Runs and saved agents do not contain its architecture.
        steps: steps per environment and rollout, which must fit into memory. 0: not checked.
        popart: normalize the values by PopArt. Then rewards are not divided, because PopArt needs rewards of a constant
            scale.

    Attributes:
        parameters: all parameters of the network as one vector.
        optimizer: optimizer of ``parameters``.
        reward_scale: the divisor of the training rewards, with ``config.normalize_rewards`` and without ``popart``.

    Raises:
        UserError: unsupported observation or action space; environments or a rollout that do not fit into memory.
    """

    envs: Envs
    reward_scale: RewardScale | None = None
    parameters: nn.Parameter
    optimizer: torch.optim.Optimizer
    honors = frozenset({"initial", "rewards", "steps", "terms", "after"})

    def __init__(
        self,
        config: PolicyConfig,
        envs: Envs | None,
        encoder: nn.Module | None,
        *,
        steps: int = 0,
        popart: bool = False,
    ) -> None:
        self.config, self.device = config, choose_device(config.device)
        self.envs = envs if envs is not None else envs_of(config, config.n_envs, config.seed)
        if config.normalize_rewards and not popart:
            self.reward_scale = RewardScale(self.envs.n_envs, self.config.gamma)
            add_transform(self.envs, self.reward_scale)
        row = observation_bytes(self.envs.observation_space) + 4 * sum(config.hidden)
        check_memory("n_steps", steps * self.envs.n_envs * row)
        self.network = make_network(config, self.envs, self.device, popart, encoder)
        self.encoder_modules = () if encoder is None else (*encoder.modules(),)
        self.parameters = flatten_parameters(self.network)
        self.rng = generator(config.seed, self.device)
        self.eval_rng = generator(derived_seed(config.seed, 8), self.device)

    @torch.no_grad()
    def fused_rollout(self, fused: FusedPolicy, n_steps: int) -> Rollout:
        """Act for ``n_steps`` in every environment, one call each; the rollout has log π(a|s) and V(s) of acting."""
        envs, distribution = self.envs, self.network.distribution
        steps, chosen, same = [], [], True
        for noise in fused.noise(n_steps, envs.n_envs, self.rng):
            seen = envs.observations
            chosen.append(fused.act(torch.from_numpy(seen), noise))
            steps.append(envs.step(distribution.to_env(chosen[-1][0].numpy())))
            same &= steps[-1].observations is seen
        actions, log_probs, values = zip(*chosen, strict=True)
        rollout = to_rollout(steps, [x.numpy() for x in actions], self.device)
        if not same:  # a transform of the steps has changed what is learned from
            return rollout
        _, _, later = fused.act(rollout.observations[len(rollout.actions) :])
        return rollout._replace(log_probs=torch.cat(log_probs), values=torch.cat([*values, later]))

    def policy_state(self) -> dict[str, Any]:
        """Return the state of the network, and the statistics of rewards, with which training may continue."""
        scale = self.reward_scale
        return super().policy_state() | ({} if scale is None else {REWARD_MOMENTS: scale.moments})

    def load_policy_state(self, state: dict[str, Any]) -> None:
        weights = {name: value for name, value in state.items() if name != REWARD_MOMENTS}
        super().load_policy_state(weights)
        if self.reward_scale is not None and REWARD_MOMENTS in state:
            self.reward_scale.moments = state[REWARD_MOMENTS]

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.get_state(),
            "envs": self.envs.state_dict(),
            "extras": self.seams.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.rng.set_state(state["rng"])
        self.seams.load_state_dict(state["extras"])
        if not self.envs.load_state_dict(state["envs"]):
            self.cut()

    def cut(self) -> None:
        self.seams.cut()


def make_network(
    config: PolicyConfig,
    envs: Envs,
    device: torch.device,
    popart: bool = False,
    encoder: nn.Module | None = None,
) -> ActorCritic:
    """Build policy and value function for the spaces of environments, with initial weights from ``config.seed``.

    Raises:
        UserError: unsupported observation or action space, or an encoder that does not fit the observations.
    """
    with seeded(config.seed):
        spaces = envs.observation_space, envs.action_space
        if config.separate != "none" and len(names_of(envs.observation_space)) == 1:
            raise UserError(f"separate: expected none without several agents or tasks, got {config.separate}")
        if popart or config.separate != "none" or config.env.central_critic:
            if config.body != "auto" or config.layer_norm or encoder is not None:
                raise UserError("body, layer_norm, encoder: not possible with separate, central_critic or popart")
            normalize = config.normalize_observations
            network: ActorCritic = GroupedActorCritic(*spaces, config.hidden, normalize, config.separate, popart)
        else:
            switches: dict[str, Any] = {"body": config.body, "layer_norm": config.layer_norm, "encoder": encoder}
            network = ActorCritic(*spaces, config.hidden, config.normalize_observations, **switches)
    if config.bfloat16:
        use_bfloat16(network)
    if isinstance(network.distribution, DiagonalGaussian):
        nn.init.constant_(network.distribution.log_std, math.log(config.initial_std))
    return network.to(device)


def standardized(x: Tensor, weights: Tensor, eps: float = 1e-8) -> Tensor:
    """Return x [N] with mean 0 and standard deviation 1, both weighted by ``weights``, which sum to 1."""
    centered = x - torch.dot(x, weights)
    return centered / (torch.dot(centered.square(), weights).sqrt() + eps)
