"""The base class of agents and the configuration that all of them share."""

from __future__ import annotations

import dataclasses
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import gymnasium
import numpy as np
import tyro
from gymnasium.vector import VectorEnv

from automl_ext.rl.envs.callables import env_id_of
from automl_ext.rl.envs.given import as_vector, is_given, name_of
from automl_ext.rl.envs.groups import names_of
from automl_ext.rl.envs.making import check_environments
from automl_ext.rl.envs.options import EnvOptions
from automl_ext.rl.envs.vector import Envs, make_envs
from automl_ext.rl.loop.evaluate import MAX_STEPS, EpisodeReturns, play
from automl_ext.rl.loop.seams import NoExtras
from automl_ext.training.checks import check_range, check_seed
from automl_ext.training.config import check_types
from automl_ext.training.search_space import Categories
from automl_ext.training.seeding import derived_seed

Env = str | Callable[..., gymnasium.Env] | gymnasium.Env | VectorEnv  # what an agent can be made for

# Values that a tuner tries for options which several algorithms have, as in RL Baselines3 Zoo.
GAMMAS = Categories(0.9, 0.95, 0.98, 0.99, 0.995, 0.999)  # discount factor
LAMBDAS = Categories(0.8, 0.9, 0.95, 0.98, 0.99, 1.0)  # λ of generalized advantage estimation


@dataclass
class TrainConfig:
    """The options that every algorithm has. A step is one transition; steps of all environments are summed.

    Raises:
        ValueError: a number out of range, or a value of another type.
    """

    env_id: str = "CartPole-v1"
    """Gymnasium id of the environment, for example CartPole-v1, ALE/Pong-v5, MinAtar/Breakout-v1 or
    dmc/cartpole-swingup. Several agents: pettingzoo/MODULE. Several tasks: ids with commas between them."""
    total_steps: int = 100_000  # Number of environment steps, summed over the environments.
    seed: int = 0  # Seed of the weights, the exploration, the batches and the environments.
    n_envs: int = 1  # Number of parallel environments; with several agents or tasks, number of copies of each.
    device: str = "cpu"  # Device of the networks: cpu, cuda or auto. Small networks are faster on the CPU.
    eval_every: int = 10_000  # Steps between evaluations.
    eval_episodes: int = 10  # Episodes per evaluation.
    eval_max_steps: int = MAX_STEPS
    """Longest episode of an evaluation, in steps. Longer episodes are truncated; the result counts them."""
    final_episodes: int = 30  # Episodes of the final evaluation of the last and of the best policy.
    checkpoint_every: int = 20_000  # Steps between checkpoints.
    env: Annotated[EnvOptions, tyro.conf.arg(name="Environment", prefix_name=False)] = field(default_factory=EnvOptions)
    """Options of environments, the same in training and in evaluation."""
    extras: Annotated[NoExtras, tyro.conf.arg(name="Extras", prefix_name=False)] = field(default_factory=NoExtras)
    """Options of additions to the algorithm, see ``automl_ext.rl.extras``."""

    def __post_init__(self) -> None:
        check_types(self)
        check_range(self, "total_steps", "n_envs", "eval_every", "checkpoint_every", low=1)
        check_range(self, "eval_episodes", "eval_max_steps", "final_episodes", low=1)
        check_seed(self.seed)

    @property
    def may_increase(self) -> dict[str, list[str]]:
        """The option that a resumed run may increase, and the options whose schedules depend on it."""
        schedules = ["lr_decay", "clip_decay", "prioritized"]
        if not getattr(self, "noisy", False):
            schedules.append("exploration_fraction")
        return {"total_steps": [name for name in schedules if getattr(self, name, False)]}


def envs_of(config: TrainConfig, n_envs: int, seed: int, *, render: bool = False) -> Envs:
    """Make environments from a configuration, for training and for evaluation.

    Raises:
        UserError: the environment does not exist, or ``n_envs`` environments do not fit into memory.
    """
    numbers = {name: getattr(config, name) for name in ("n_envs", "eval_episodes", "final_episodes")}
    if n_envs not in numbers.values():  # of an evaluation with a number of its own
        numbers["episodes"] = n_envs
    for name, number in numbers.items():
        check_environments(name, number, config.env_id, config.env)
    return make_envs(config.env_id, n_envs, seed, config.env, render=render)


def with_env(config: Any, env: Env | None) -> tuple[Any, Envs | None]:
    """Return a configuration for an environment, and the environments if ``env`` is one itself.

    Raises:
        UserError: an environment that no agent can act in.
        TypeError: ``env`` is neither an id, nor a callable, nor an environment.
    """
    if env is None:
        return config, None
    if not is_given(env):
        return dataclasses.replace(config, env_id=env_id_of(env)), None
    vector, old = as_vector(env), config.env
    options = EnvOptions(reward_clip=old.reward_clip, step_timeout=old.step_timeout)
    config = dataclasses.replace(config, env_id=name_of(env), n_envs=vector.num_envs, env=options)
    return config, Envs(vector, config.seed, options.reward_clip, step_timeout=options.step_timeout)


def play_policy(agent: Agent, config: TrainConfig, episodes: int, seed: int) -> tuple[EpisodeReturns, tuple[str, ...]]:
    """Play ``episodes`` episodes of the agent's policy; ``seed`` determines them. Return also the names of the groups.

    They are played in new environments: of ``config.env_id``, or like those that the agent was given. Where nothing
    says how to make those, they are played in the training environments, whose running episodes are aborted.

    Raises:
        UserError: the environment does not exist, or has other spaces than the agent.
        EnvError: the environments' own code failed.
    """
    own = agent.given
    envs = envs_of(config, episodes, seed) if own is None else own.others(episodes, seed)
    act, begin, limit = agent.evaluation_actions, agent.begin, config.eval_max_steps
    if envs is not None:
        agent.check_spaces(envs)
        return play(act, envs, begin, limit), names_of(envs.observation_space)
    assert own is not None
    warnings.warn(
        f"evaluation: {own.vector} cannot be made again: policies are evaluated in the training environments, and end "
        "their running episodes; for evaluations in others, pass an id or a callable that makes an environment",
        stacklevel=2,
    )
    returns, cut = np.zeros(0), 0
    while len(returns) < episodes:
        number = min(episodes - len(returns), own.n_envs)
        played = play(act, own.lent(derived_seed(seed, len(returns))), begin, limit, number)
        returns, cut = np.append(returns, played.returns), cut + played.cut
    agent.restart()
    return EpisodeReturns(returns, cut), names_of(own.observation_space)


def multiples(after: int, until: int, every: int) -> int:
    """Return the number of multiples of ``every`` in (after, until]."""
    return max(until // every - after // every, 0)


@dataclass
class NoEnvs:
    """Stands in for :class:`~automl_ext.rl.envs.vector.Envs` in a loaded agent, which needs no environments to act."""

    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    n_envs: int
    frame_stack: int = 1
    steps: int = 0
    episodes: list[Any] = field(default_factory=list)
    transforms: list[Any] = field(default_factory=list)  # of the environments that replace this object

    def close(self) -> None:
        """Do nothing."""


class Agent(ABC):
    """An algorithm with its environments, networks, optimizers, replay and random generators.

    Attributes:
        envs: usually :class:`~automl_ext.rl.envs.vector.Envs`; the training loop needs ``steps``, ``episodes`` and
            ``close()``.
        config: the configuration.
        algorithm: name of the algorithm, for run directories and saved agents.
        updates: number of gradient steps so far; None if the agent does not count them. The result reports it, and
            a warning if it is 0.
    """

    envs: Any
    config: Any
    algorithm: ClassVar[str]
    updates: int | None = None

    def prepare(self, resuming: bool = False) -> None:  # noqa: B027  # most agents need nothing
        """Read the files that only training needs; called before training, before a run directory exists.

        Args:
            resuming: a checkpoint will be loaded afterwards, which replaces the policy.

        Raises:
            UserError: a file is missing or damaged, or does not fit.
        """

    @property
    def given(self) -> Envs | None:
        """The training environments, if they are others than those of ``config.env_id``."""
        envs = self.envs
        return envs if isinstance(envs, Envs) and envs.env_id != self.config.env_id else None

    def check_spaces(self, envs: Any) -> None:  # noqa: B027
        """Close the environments and raise UserError unless they have the spaces of the agent."""

    def restart(self) -> None:
        """Abort the running episodes of the training environments and start new ones."""
        self.envs.reset()
        self.cut()

    def cut(self) -> None:  # noqa: B027  # most agents remember nothing
        """Forget the running episodes: new ones have started, without an end of the others."""

    @abstractmethod
    def iterate(self) -> dict[str, Any]:
        """Act for some steps and update the networks.

        Returns:
            Measurements by name, numbers or scalar tensors. ``cpu_seconds`` is the CPU time of other processes.
        """

    def begin(self, starting: np.ndarray) -> None:  # noqa: B027  # only recurrent policies have a state
        """Reset the policy's recurrent state where episodes start; called before every :meth:`act`.

        Args:
            starting: bool [B], True where an observation is the first of its episode.
        """

    @abstractmethod
    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return the deterministic actions [B, ...] for observations [B, ...]."""

    def evaluation_actions(self, observations: np.ndarray) -> np.ndarray:
        """Return the actions [B, ...] of an evaluation: those of :meth:`act`, unless an option changes that."""
        return self.act(observations)

    @abstractmethod
    def policy_state(self) -> dict[str, Any]:
        """Return the state that :meth:`act` depends on: tensors and plain Python values."""

    @abstractmethod
    def load_policy_state(self, state: dict[str, Any]) -> None:
        """Restore :meth:`policy_state`."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return the complete training state, the environments' state included: tensors and plain Python values."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
