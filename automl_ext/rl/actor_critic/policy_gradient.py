"""Code shared by REINFORCE, A2C and PPO: configuration, network, the gradient step, acting and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import nn

from automl_ext.rl.augmentation.drac import DrAC
from automl_ext.rl.augmentation.shift import RandomShift
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.exploration.bonus import BonusName, StepBonus, explore_steps
from automl_ext.rl.imitation.initial import initial_policy
from automl_ext.rl.loop.agent import TrainConfig, training_envs
from automl_ext.rl.loop.checks import check_hidden, check_max_grad_norm, observation_bytes, warn_without_effect
from automl_ext.rl.loop.extensions import ExtraLoss, load_states, states
from automl_ext.rl.loop.policy import PolicyAgent
from automl_ext.rl.loop.ranges import GAMMAS
from automl_ext.rl.networks.actor_critic import ActorCritic, acting
from automl_ext.rl.networks.encoders import Kind
from automl_ext.rl.networks.grouped import GroupedActorCritic, Separate
from automl_ext.rl.networks.groups import names_of
from automl_ext.rl.networks.parameters import flatten_parameters
from automl_ext.rl.shaping.shaping import shape_rewards
from automl_ext.training import ranks
from automl_ext.training.checks import check_range
from automl_ext.training.errors import UserError
from automl_ext.training.machine.device import choose_device
from automl_ext.training.machine.memory import check_memory
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.search_space import Range
from automl_ext.training.seeding import derived_seed, numpy_generator_state, set_numpy_generator_state


@dataclass
class PolicyGradientConfig(TrainConfig):
    """Configuration that the policy-gradient algorithms share.

    Raises:
        ValueError: a number out of range.
    """

    n_envs: int = 8  # Number of environments.
    gamma: Annotated[float, GAMMAS] = 0.99  # Discount factor.
    lr: Annotated[float, Range(1e-5, 1e-2, log=True)] = 3e-3  # Learning rate.
    vf_coef: Annotated[float, Range(0.1, 1.0)] = 0.5  # Weight of the value loss.
    ent_coef: Annotated[float, Range(1e-8, 0.1, log=True)] = 0.0  # Weight of the entropy bonus.
    max_grad_norm: Annotated[float, Range(0.3, 5.0, log=True)] = 0.5  # Gradient norm to clip at; inf: no clipping.
    hidden: tuple[int, ...] = (64, 64)  # Units of each hidden layer.
    normalize: bool = False  # Normalize observations by their running mean and standard deviation.
    body: Kind = "auto"  # Convolutions for images: of Nature DQN, one small one, or IMPALA's residual network.
    layer_norm: bool = False  # Normalize the outputs of every hidden layer, before its activation.
    bonus: BonusName = "none"  # Reward for novelty: counts of observations, RND or ICM. Reported returns exclude it.
    bonus_weight: float = 0.1  # Weight of the bonus.
    bonus_once: bool = False  # Give the bonus only at the first visit of an observation in an episode.
    drac: float = 0.0  # Weight of DrAC's loss, which keeps policy and value equal for shifted images.
    augment_shift: int = 4  # Largest shift of an image by drac, in pixels.
    eval_sample: bool = False  # Sample the actions in evaluations. Default: take the most probable ones.
    init_policy: str | None = None  # Start from the policy of this run directory or file, such as one of train bc.
    potential: str | None = None  # Shape rewards: a potential, mountain-car, frozen-lake or MODULE:FUNCTION.
    separate: Separate = "none"  # What each of several agents or tasks has for itself: none, heads or networks.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "gamma", low=0, high=1)
        check_range(self, "lr", above=0)
        check_range(self, "vf_coef", "ent_coef", "bonus_weight", "drac", low=0)
        check_range(self, "augment_shift", low=1)
        if self.bonus_once and self.bonus == "none":
            raise ValueError("bonus_once: expected False without a bonus, got True; set bonus")
        check_max_grad_norm(self)
        check_hidden(self)


class PolicyGradientAgent(PolicyAgent):
    """Acting and checkpoints of an agent with an :class:`ActorCritic`. Subclasses set the attributes and learn.

    Attributes:
        envs: training environments. The agent owns them.
        network: policy and value function.
        parameters: all parameters of the network as one vector.
        optimizer: optimizer of ``parameters``.
        outputs: function from observations to the policy's outputs, in NumPy.
        rng: random generator of the actions.
        eval_rng: random generator of the actions in evaluations; each evaluation begins with the same state.
        extra_losses: terms that are added to the loss, as from :func:`make_extra_losses`.
        bonus: the exploration bonus; None for none.
    """

    envs: Envs
    network: ActorCritic
    parameters: torch.nn.Parameter
    optimizer: torch.optim.Optimizer
    outputs: Callable[[np.ndarray], np.ndarray]
    rng: np.random.Generator
    extra_losses: Sequence[ExtraLoss] = ()
    bonus: StepBonus | None = None
    eval_rng: np.random.Generator
    _policy_given = False  # whether a policy was loaded, which replaces config.init_policy

    def prepare(self, resuming: bool = False) -> None:
        """Load the policy ``config.init_policy``, unless training has begun or another policy was loaded."""
        path = self.config.init_policy
        if path is not None and not (resuming or self.envs.steps or self._policy_given):
            self.load_policy_state(initial_policy(path, self.policy_state()))

    def set_up(
        self,
        config: PolicyGradientConfig,
        envs: Envs | None,
        encoder: nn.Module | None,
        *,
        steps: int = 0,
        popart: bool = False,
    ) -> None:
        """Set every attribute that the algorithms share, which is all but the optimizer.

        Args:
            config: the configuration, an attribute too.
            envs: None: they are made.
            encoder, popart: see :func:`make_network`.
            steps: steps per environment and rollout, which must fit into memory. 0: not checked.
        """
        self.config, self.device = config, choose_device(config.device)
        self.envs = envs if envs is not None else training_envs(config)
        shape_rewards(self.envs, config.potential, config.gamma)
        row = observation_bytes(self.envs.observation_space) + 4 * sum(config.hidden)
        check_memory("n_steps", steps * self.envs.n_envs * row)
        self.network = make_network(config, self.envs, self.device, popart, encoder)
        self.parameters = flatten_parameters(self.network)
        self.outputs = acting(self.network, self.device)
        self.rng = np.random.default_rng(config.seed)
        self.eval_rng = np.random.default_rng(derived_seed(config.seed, 8))
        self.extra_losses = make_extra_losses(config, self.envs, self.device)
        self.bonus = explore(config, self.envs, self.device)

    def sample(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sample actions; return them as sampled and as the environment takes them."""
        distribution = self.network.distribution
        actions = distribution.sample(self.outputs(observations), self.rng)
        return actions, distribution.to_env(actions)

    def begin(self, starting: np.ndarray) -> None:
        if starting.all():  # a new evaluation
            self.eval_rng = np.random.default_rng(derived_seed(self.config.seed, 8))

    def evaluation_actions(self, observations: np.ndarray) -> np.ndarray:
        """Return the most probable actions, or sampled ones with ``config.eval_sample``; draws nothing from ``rng``."""
        return self.sampled(observations, self.eval_rng) if self.config.eval_sample else self.act(observations)

    def bonus_metrics(self) -> dict[str, float]:
        """Return the mean bonus of the steps since the last call; {} without a bonus."""
        return {} if self.bonus is None else self.bonus.measured()

    def restarted(self) -> None:
        """Forget the running episodes; called when a resumed run starts new ones."""

    def load_policy_state(self, state: dict[str, Any]) -> None:
        super().load_policy_state(state)
        self._policy_given = True

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
        if not self.envs.load_state_dict(state["envs"]):
            self.restarted()
        load_states(self.extra_losses, state.get("extra_losses", []))


def explore(config: PolicyGradientConfig, envs: Envs, device: torch.device) -> StepBonus | None:
    """Add the configuration's exploration bonus to the rewards of the environments; None for none."""
    warn_without_effect(config, "bonus", "bonus_weight", "bonus_once")
    return explore_steps(
        config.bonus, config.bonus_weight, envs, config.gamma, config.seed, device, once=config.bonus_once
    )


def make_network(
    config: PolicyGradientConfig,
    envs: Envs,
    device: torch.device,
    popart: bool = False,
    encoder: nn.Module | None = None,
) -> ActorCritic:
    """Build policy and value function, with initial weights from ``config.seed``.

    Args:
        config: sizes and switches of the network.
        envs: have the spaces of observations and actions.
        device: of the network.
        popart: normalize the values by PopArt.
        encoder: see :class:`~automl_ext.rl.networks.body.Body`.

    Raises:
        UserError: unsupported observation or action space, or an encoder that does not fit the observations.
    """
    with torch.random.fork_rng(devices=[]):  # leave the caller's random state unchanged
        torch.manual_seed(config.seed)
        spaces = envs.observation_space, envs.action_space
        if config.separate != "none" and len(names_of(envs.observation_space)) == 1:
            raise UserError(f"separate: expected none without several agents or tasks, got {config.separate}")
        if popart or config.separate != "none" or config.env.central_critic:
            if config.body != "auto" or config.layer_norm or encoder is not None:
                raise UserError("body, layer_norm, encoder: not possible with separate, central_critic or popart")
            network: ActorCritic = GroupedActorCritic(*spaces, config.hidden, config.normalize, config.separate, popart)
        else:
            switches: dict[str, Any] = {"body": config.body, "layer_norm": config.layer_norm, "encoder": encoder}
            network = ActorCritic(*spaces, config.hidden, config.normalize, **switches)
    return network.to(device)


def make_extra_losses(config: PolicyGradientConfig, envs: Envs, device: torch.device) -> list[ExtraLoss]:
    """Make the terms of the loss that the configuration asks for.

    Raises:
        UserError: ``drac`` with observations that are not images, images not larger than the shift, or several ranks.
    """
    if config.drac and ranks.count() > 1:
        raise UserError(f"drac: expected 0 with several processes, got {config.drac}")
    warn_without_effect(config, "drac", "augment_shift")
    extra: list[ExtraLoss] = []
    if config.drac:
        seed = derived_seed(config.seed, 4)
        extra.append(DrAC(config.drac, RandomShift("drac", envs.observation_space, config.augment_shift, seed, device)))
    return extra
