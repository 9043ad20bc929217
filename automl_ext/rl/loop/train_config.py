"""The configuration that all agents share, and the environments that it describes."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import gymnasium
import tyro
from gymnasium.vector import VectorEnv

from automl_ext.rl.envs.callables import env_id_of
from automl_ext.rl.envs.given import as_vector, is_given, name_of
from automl_ext.rl.envs.making import check_environments
from automl_ext.rl.envs.options import EnvOptions
from automl_ext.rl.envs.vector import Envs, make_envs
from automl_ext.rl.loop.seams import NoExtras
from automl_ext.training.checks import check_range, check_seed
from automl_ext.training.config import check_types
from automl_ext.training.search_space import Categories

Env = str | Callable[..., gymnasium.Env] | gymnasium.Env | VectorEnv  # what an agent can be made for
APPLIED = ("reward_clip", "step_timeout")  # options of environments that also apply to environments that exist
MAX_STEPS = 27_000  # default limit of an evaluation episode: half an hour of an Atari game

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
    device: str = field(default="cpu", metadata={"without_effect": True})
    """Device of the networks: cpu, cuda or auto. Small networks are faster on the CPU."""
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

    The options in ``APPLIED`` apply to an environment itself too. Others do not; a warning names those that are set.

    Raises:
        UserError: an environment that no agent can act in.
        TypeError: ``env`` is neither an id, nor a callable, nor an environment.
    """
    if env is None:
        return config, None
    if not is_given(env):
        return dataclasses.replace(config, env_id=env_id_of(env)), None
    vector, old = as_vector(env), config.env
    options = EnvOptions(**{name: getattr(old, name) for name in APPLIED})
    if lost := [name for name, value in vars(old).items() if value != getattr(options, name)]:
        warnings.warn(f"env: {', '.join(lost)}: not applied to an environment that exists", stacklevel=3)
    config = dataclasses.replace(config, env_id=name_of(env), n_envs=vector.num_envs, env=options)
    return config, Envs(vector, config.seed, options.reward_clip, step_timeout=options.step_timeout)
