"""The base class of agents that learn from recorded episodes, and the configuration that they share."""

from __future__ import annotations

import hashlib
import warnings
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import gymnasium
import numpy as np
import torch
import tyro
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

from automl_ext.rl.envs.packed import TAKERS, check_not_packed
from automl_ext.rl.envs.vector import Envs, NoEnvs
from automl_ext.rl.loop.agent import Agent
from automl_ext.rl.loop.averages import mean_metrics
from automl_ext.rl.loop.train_config import TrainConfig, envs_of
from automl_ext.rl.networks.action_spaces import BoxScaling, unsupported
from automl_ext.rl.networks.body import RunningNorm
from automl_ext.rl.networks.parameters import check_hidden, check_max_grad_norm
from automl_ext.rl.replay.episode_files import read_episodes, recorded_in
from automl_ext.rl.replay.episodes import RecordedEpisode, as_recorded, fill
from automl_ext.rl.replay.uniform import Batch, UniformReplay
from automl_ext.training.checks import check_range
from automl_ext.training.errors import UserError
from automl_ext.training.machine.device import choose_device
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.seeding import derived_seed, numpy_generator_state, set_numpy_generator_state

UPDATES = 10  # gradient steps per iteration
OTHER_DATA = "episodes: expected those with which the training began, got others"


@dataclass
class OfflineConfig(TrainConfig):
    """Configuration that the agents of recorded episodes share. A step is one gradient step.

    Raises:
        ValueError: a number out of range.
    """

    episodes: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """File of recorded episodes, from automl-ext record; or minari:NAME, a data set of Minari on this machine. Repeat
    the option to learn from several."""
    total_steps: int = 10_000  # Number of gradient steps.
    eval_every: int = 1_000  # Gradient steps between evaluations in the environment.
    checkpoint_every: int = 5_000  # Gradient steps between checkpoints.
    n_envs: tyro.conf.Suppress[int] = 1  # Environments; training uses none.
    batch_size: int = 256  # Transitions per gradient step.
    lr: float = 1e-3  # Learning rate of Adam.
    gamma: float = 0.99  # Discount factor.
    max_grad_norm: float = 10.0  # Gradient norm to clip at; inf: no clipping.
    hidden: tuple[int, ...] = (64, 64)  # Units of each hidden layer.
    normalize_observations: bool = False  # Normalize observations by the mean and standard deviation of the data.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "batch_size", low=1)
        check_range(self, "lr", above=0)
        check_range(self, "gamma", low=0, high=1)
        check_max_grad_norm(self)
        check_hidden(self)


class OfflineAgent(Agent):
    """An agent that learns from recorded episodes; see :class:`automl_ext.rl.loop.agent.Agent`.

    Environments are made only for evaluations. ``envs.steps`` counts gradient steps.

    Args:
        config: settings, the files of episodes and the environment.
        envs: has the attributes ``observation_space`` and ``action_space``. None: the environment is made once to read
            them.

    Attributes:
        replay: holds the episodes. None before :meth:`set_episodes`.
        networks: the networks by their names in checkpoints. Subclasses set them and the optimizer.
        optimizer: their optimizer.
    """

    config: Any
    envs: NoEnvs
    networks: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer

    def __init__(self, config: OfflineConfig, envs: Any = None) -> None:
        if envs is None:
            envs = envs_of(config, 1, config.seed)
            envs.close()
        self.config, self.device = config, choose_device(config.device)
        check_not_packed(envs.observation_space, self.algorithm, TAKERS)
        if not isinstance(envs.action_space, (Discrete, Box)):
            raise unsupported(envs.action_space)
        self.envs = NoEnvs(envs.observation_space, envs.action_space, 1)
        self._given = envs if isinstance(envs, Envs) and envs.env_id != config.env_id else None
        self.batch_rng = np.random.default_rng(derived_seed(config.seed, 3))  # samples the batches
        self.replay: UniformReplay | None = None
        self._digest = ""

    @property
    def given(self) -> Envs | None:
        return self._given

    def restart(self) -> None:
        """Do nothing: training needs no environments."""

    def use_envs(self, envs: Envs) -> None:
        self.check_spaces(envs)
        self._given = envs

    def close(self) -> None:
        if self._given is not None:
            self._given.close()

    def prepare(self, resuming: bool = False) -> None:
        """Read the files of episodes, unless :meth:`set_episodes` was called.

        Raises:
            UserError: no file is named, or one is missing, damaged, or of another environment.
        """
        if self.replay is not None:
            return
        names = self.config.episodes
        if not names:
            raise UserError("episodes: expected a file of automl-ext record, got none: --episodes FILE")
        found: list[RecordedEpisode] = []
        for name in names:
            episodes, source = read_episodes(name), recorded_in(name)
            is_other = source not in (None, self.config.env_id)
            where = f"--episodes {name}" + is_other * f", recorded in {source}"
            check_spaces(episodes, *self.spaces, where)
            if is_other:
                warnings.warn(f"{where}: the policy is evaluated in {self.config.env_id} (--env-id)", stacklevel=2)
            found += episodes
        self.set_episodes(found)

    def set_episodes(self, episodes: Iterable[Any]) -> None:
        """Learn from these episodes.

        Args:
            episodes: objects or dicts with Minari's fields; see
                :class:`~automl_ext.rl.replay.episodes.RecordedEpisode`.

        Raises:
            UserError: their observations or actions are not those of the environment.
            ValueError: their lengths do not match, there are no steps, or training began with other episodes.
        """
        found = as_recorded(episodes)
        check_spaces(found, *self.spaces, "episodes")
        total = sum(len(episode.actions) for episode in found)
        space, digest = self.envs.observation_space, hashlib.sha256()
        found = [e._replace(actions=normalized_actions(e.actions, self.envs.action_space)) for e in found]
        clip = self.config.env.reward_clip
        if clip is not None:
            found = [e._replace(rewards=e.rewards.clip(-clip, clip)) for e in found]
        for episode in found:
            for x in episode:
                digest.update(x.tobytes())
        if self.envs.steps and digest.hexdigest() != self._digest:
            raise ValueError(OTHER_DATA)
        self.replay = UniformReplay(
            total,
            space.shape or (),
            space.dtype,
            found[0].actions.shape[1:],
            found[0].actions.dtype,
            generator=self.batch_rng,
            n_step=self.window(max(len(episode.actions) for episode in found)),
            gamma=self.config.gamma,
            device=self.device,
        )
        fill(self.replay, found)
        self._digest = digest.hexdigest()
        if self.config.normalize_observations and not self.envs.steps:
            observations = torch.from_numpy(np.concatenate([e.observations for e in found]))
            for module in nn.ModuleList(self.networks.values()).modules():
                # A given policy keeps its statistics; networks that learn beside it have none yet.
                if isinstance(module, RunningNorm) and not (self._policy_given and module.count):
                    module.count.zero_()  # nothing of the data of an earlier call
                    module.update(observations)

    def iterate(self) -> dict[str, Any]:
        """Take UPDATES gradient steps, or fewer where an evaluation, a checkpoint or the end is due before.

        Returns:
            The means of their metrics.
        """
        if self.replay is None:
            raise ValueError("episodes: expected set_episodes() before training")
        measured, steps, config = [], self.envs.steps, self.config
        ends = [steps - steps % every + every for every in (UPDATES, config.eval_every, config.checkpoint_every)]
        if steps < config.total_steps:
            ends.append(config.total_steps)
        for _ in range(min(ends) - steps):
            measured.append(self.update(self.replay.sample(self.config.batch_size)))
            self.envs.steps += 1
        return mean_metrics(measured)

    def state_dict(self) -> dict[str, Any]:
        learning = {name: network.state_dict() for name, network in self.networks.items()}
        return {
            "rng": numpy_generator_state(self.batch_rng),
            "steps": self.envs.steps,
            "data": self._digest,
            "learning": learning | {"optimizer": self.optimizer.state_dict()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.replay is not None and state["data"] != self._digest:
            raise ValueError(OTHER_DATA)
        self._digest = state["data"]
        set_numpy_generator_state(self.batch_rng, state["rng"])
        for name, network in self.networks.items():
            network.load_state_dict(state["learning"][name])
        load_optimizer(self.optimizer, state["learning"]["optimizer"])
        self.envs.steps = state["steps"]

    def _make_envs(self) -> None:
        """Do nothing: training needs no environments."""

    # Methods that the algorithms implement.

    def window(self, longest: int) -> int:
        """Return the number of rewards in each return of a batch; ``longest`` is the length of the longest episode."""
        return 1

    @abstractmethod
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Take one gradient step; return metrics, detached."""


def check_spaces(
    episodes: list[RecordedEpisode], observations: gymnasium.Space, actions: gymnasium.Space, where: str
) -> None:
    """Check that episodes fit the spaces of an environment.

    Raises:
        UserError: another shape or dtype, or an action that the environment does not have.
    """
    for i, episode in enumerate(episodes):
        for name, x, space in (
            ("observations", episode.observations, observations),
            ("actions", episode.actions, actions),
        ):
            dtype, shape = np.dtype(space.dtype or np.float32), space.shape or ()
            if x.shape[1:] != shape or (x.dtype.kind in "iu") != (dtype.kind in "iu"):
                raise UserError(
                    f"{where}: episode {i}: {name}: expected {dtype} {list(shape)}, as in the environment, got "
                    f"{x.dtype} {list(x.shape[1:])}"
                )
            if isinstance(space, Discrete):
                wrong = (x < space.start) | (x >= space.start + space.n)
                if wrong.any():
                    raise UserError(f"{where}: episode {i}: {name}: expected values of {space}, got {x[wrong][0]}")


def normalized_actions(actions: np.ndarray, space: gymnasium.Space) -> np.ndarray:
    """Return actions as agents use them: int64 from 0, [T]; or float32 with bounds ±1, [T, dims].

    Raises:
        UserError: the space is neither Discrete nor a Box of floats.
    """
    if isinstance(space, Discrete):
        return actions.astype(np.int64) - int(space.start)
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
        box = BoxScaling(space)
        return ((actions - box.middle) / box.half).reshape(len(actions), -1).astype(np.float32)
    raise unsupported(space)
