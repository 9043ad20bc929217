"""The base class of agents: learn, predict, evaluate and save, and the methods that algorithms implement."""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np

from automl_ext.rl.envs.callables import check_known
from automl_ext.rl.envs.packed import as_batch
from automl_ext.rl.envs.vector import Envs, NoEnvs
from automl_ext.rl.loop.evaluate import play_policy, warn_of_cut
from automl_ext.rl.loop.loop import Callback, Training, has_checkpoint
from automl_ext.rl.loop.saved import write_agent
from automl_ext.rl.loop.seams import Extra, Seam, Seams
from automl_ext.rl.loop.train_config import envs_of
from automl_ext.training.checks import check_seed
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.seeding import derived_seed
from automl_ext.training.words import naming_ours, translated

State = Sequence[np.ndarray] | None


class Agent(ABC):
    """An algorithm with its environments, networks, optimizers, replay and random generators.

    It trains itself, predicts actions for observations and can be saved.

    Attributes:
        envs: usually :class:`~automl_ext.rl.envs.vector.Envs`; training needs ``steps``, ``episodes`` and ``close()``.
        config: the configuration. :meth:`learn` replaces it by one with another ``total_steps``.
        algorithm: its name, in :data:`automl_ext.rl.registry.ALGORITHMS`, run directories and saved agents.
        updates: number of gradient steps so far; None if the agent does not count them. The result reports it, and
            a warning if it is 0.
        best: the ``step``, ``return`` and ``policy`` of the best policy of the last :meth:`learn`. None before the
            first call.
        honors: the seams at which extras can act on this algorithm.
    """

    envs: Any
    config: Any
    algorithm: ClassVar[str]
    updates: int | None = None
    best: dict[str, Any] | None = None
    honors: ClassVar[frozenset[Seam]] = frozenset()
    _policy_given = False  # whether a policy was loaded, which training then starts from

    def __new__(cls, *args: Any, **options: Any) -> Agent:
        """Refuse the arguments of Stable-Baselines3: ``PPO("MlpPolicy", env)``."""
        if "policy" in options or (args and isinstance(args[0], str)):
            got = short(options.get("policy", args[0] if args else None))
            call = f"rl.make({cls.algorithm!r}, env{translated(options)})"
            raise TypeError(f"{cls.__name__}: expected a configuration, got {got}; use {call}")
        return super().__new__(cls)

    @functools.cached_property
    def seams(self) -> Seams:
        """The parts that extras have added."""
        return Seams()

    def attach(self, extra: Extra) -> None:
        """Add an extra, before training.

        Raises:
            UserError: the algorithm does not have the seams that the extra needs, or has this extra already.
        """
        if not extra.seams <= self.honors:
            needed = ", ".join(sorted(extra.seams - self.honors))
            raise UserError(f"{extra.name}: not possible with {self.algorithm}, which has no seam for: {needed}")
        if extra.name in self.seams.names:
            raise UserError(f"{extra.name}: expected once, got it twice")
        self.seams.names.add(extra.name)
        part = extra.attach(self)
        if part is not None:
            self.seams.parts[extra.name] = part

    def attach_extras(self) -> None:
        """Add the extras of the configuration. The constructors of agents call it last."""
        for extra in self.config.extras.each():
            self.attach(extra)

    def prepare(self, resuming: bool = False) -> None:
        """Read the files that only training needs; called before training, before a run directory exists.

        Args:
            resuming: a checkpoint will be loaded afterwards, which replaces the policy.

        Raises:
            UserError: a file is missing or damaged, or does not fit.
        """
        if not resuming:
            self.set_initial_policy()

    def set_initial_policy(self) -> None:
        """Set the initial weights that extras ask for, unless training has begun or a policy was loaded.

        The constructor does not do this, because a loaded agent and a resumed run must not need the file. Instead, the
        methods that use the weights call it: ``iterate`` of algorithms with the seam ``initial``, and those below.
        """
        if not (self.envs.steps or self._policy_given):
            for change in self.seams.initial:
                self.set_policy(change(self.policy_state()))

    @property
    def spaces(self) -> tuple[gymnasium.Space, gymnasium.Space]:
        """Space of the observations, as the agent sees them (floats are float32), and space of the actions."""
        envs: Any = self.envs
        return envs.observation_space, envs.action_space

    @naming_ours
    def learn(
        self,
        total_steps: int | None = None,
        *,
        out: str | Path | None = None,
        resume: str | None = None,
        callback: Callback | None = None,
    ) -> dict[str, Any]:
        """Train, with evaluations every ``config.eval_every`` steps. Afterwards the agent has the last policy.

        A second call continues the training, with new episodes if the environments are an object that was passed to
        ``rl.make``. After ``rl.load``, everything except the policy is new; see :func:`rl.load`.

        Args:
            total_steps: number of steps of this call. None: up to ``config.total_steps``.
            out: run directory, with the same files as from ``automl-ext train``. None: no files are written.
            resume: see :meth:`automl_ext.training.run.Run.open`; needs ``out``.
            callback: called after each evaluation with a :class:`~automl_ext.rl.loop.loop.Report`. If it returns
                False, the training ends early, with a complete result.

        Returns:
            The result, see :func:`automl_ext.rl.loop.loop.train`. If the callback stopped the training, the result also
            has ``stopped_early`` = True.

        Raises:
            ValueError, TypeError: a wrong argument, or no steps are left.
            UserError, EnvError: see :func:`automl_ext.rl.loop.loop.train`.
        """
        if resume is not None and out is None:
            raise ValueError(f"resume: expected None without out, got {resume!r}")
        self._make_envs()
        if self.given is not None:
            self.restart()  # their owner may have stepped them
        self.prepare(has_checkpoint(out, resume))
        steps = self.envs.steps
        if total_steps is not None:
            if type(total_steps) is not int or total_steps < 1:
                raise ValueError(f"total_steps: expected an int of at least 1, got {short(total_steps)}")
            self.set_total_steps(steps + total_steps)
        elif steps >= self.config.total_steps:
            raise ValueError(f"total_steps: expected a number, since all {self.config.total_steps} steps are done")
        training = Training(self, self.config, callback)
        try:
            result = training.run_in(out, resume)
        finally:
            self.pause()
        assert result is not None  # None is returned only with stop_after
        self.best = training.best
        return result

    def predict(
        self,
        observation: Any,
        state: State = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_mask: Any = None,
    ) -> tuple[Any, State]:
        """Choose the action for an observation, or the actions for a batch, as Stable-Baselines3's ``predict``.

        Pass raw observations, because normalization is part of the policy. With options such as ``frame_stack``, pass
        the observations of the wrapped environment.

        Args:
            observation: an array of the observation space's shape, or of a batch [N, ...]; a dict or a tuple of such
                arrays if the environment has a Dict or Tuple space.
            state: the state that the previous call returned, for recurrent policies (Dreamer). None: episodes start.
            episode_start: bool or bool [N], True where the observation starts a new episode; ``state`` is reset there.
            deterministic: return the most probable action. Otherwise sample from the policy (DQN: a random action with
                probability ``final_epsilon``).
            action_mask: the action mask, [actions] or [N, actions], if the environment has it in its info dictionaries.

        Returns:
            The action, or actions [N, ...], in the form that the environment takes.
            The recurrent state, a tuple of arrays [N, ...]; None if the policy has no state.

        Raises:
            ValueError: a wrong shape or dtype, or values that are not finite; names the argument.
        """
        self.set_initial_policy()
        observations, single = as_batch(observation, self.spaces[0], action_mask)
        starting = np.zeros(len(observations), bool) if episode_start is None else np.atleast_1d(episode_start)
        if starting.dtype != bool or starting.shape != (len(observations),):
            raise ValueError(f"episode_start: expected bool [{len(observations)}], got {short(episode_start)}")
        actions, state = self.choose(observations, state, starting, deterministic)
        if isinstance(self.spaces[1], gymnasium.spaces.Discrete):  # one with a dtype of its own contains no int64
            actions = actions.astype(self.spaces[1].dtype, copy=False)
        return (actions[0] if single else actions), state

    def evaluate(self, episodes: int = 30, seed: int = 0) -> np.ndarray:
        """Play whole episodes in new environments; return their returns, float64 [episodes].

        The actions are deterministic, unless the configuration has ``eval_sample``.
        With several agents or tasks, each has ``episodes`` returns, and the returns alternate between them.
        ``automl-ext eval`` plays the same episodes for the same seed.

        Raises:
            ValueError: ``episodes`` is not an int of at least 1, or ``seed`` is not a valid seed.
            UserError: the environment is not known in this process, or has other spaces than the agent.
        """
        if type(episodes) is not int or episodes < 1:
            raise ValueError(f"episodes: expected an int of at least 1, got {short(episodes)}")
        check_seed(seed)
        if self.given is None:
            check_known(self.config.env_id, "evaluate")
        self.set_initial_policy()
        played, _ = play_policy(self, self.config, episodes, derived_seed(seed, 1))
        warn_of_cut(played, self.config.eval_max_steps)
        return played.returns

    def restore_best(self) -> int:
        """Replace the policy by the best one of the last :meth:`learn`. Return the step at which it was found.

        Raises:
            ValueError: the agent has not learned.
        """
        if self.best is None:
            raise ValueError("restore_best: the agent has not learned yet")
        self.set_policy(self.best["policy"])
        return self.best["step"]

    def save(self, path: str | Path) -> Path:
        """Write the policy, the configuration and the spaces to one file, which ``rl.load`` reads.

        The optimizer, the replay and the environments are not in it; a run directory (``learn(out=...)``) has them.

        Raises:
            OSError: the file cannot be written.
            UserError: ``path`` is a folder, or a space or an entry of the policy cannot be saved.
        """
        self.set_initial_policy()
        path = Path(path)
        write_agent(path, self.algorithm, self.config, self.spaces, self.policy_state())
        return path

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    @property
    def given(self) -> Envs | None:
        """The training environments, if they are not those of ``config.env_id`` but were passed as an object."""
        envs = self.envs
        return envs if isinstance(envs, Envs) and envs.env_id != self.config.env_id else None

    def restart(self) -> None:
        """Abort the running episodes of the training environments and start new ones."""
        self.envs.reset()
        self.cut()

    def cut(self) -> None:  # noqa: B027  # most agents remember nothing
        """Forget the running episodes: they were aborted, and new ones have started."""

    # Methods that the algorithms implement or override.

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

    def choose(
        self, observations: np.ndarray, state: State, starting: np.ndarray, deterministic: bool
    ) -> tuple[np.ndarray, State]:
        """Choose actions for a batch of observations; see :meth:`predict`. Recurrent policies override it."""
        return (self.act(observations) if deterministic else self.random_actions(observations)), None

    def random_actions(self, observations: np.ndarray) -> np.ndarray:
        """Sample actions from the policy with :attr:`random`."""
        raise NotImplementedError(f"{type(self).__name__} has no random actions")

    @functools.cached_property
    def random(self) -> np.random.Generator:
        """Generator of :meth:`random_actions`. ``predict`` must not change the generator of the training."""
        return np.random.default_rng(derived_seed(self.config.seed, 5))

    def set_policy(self, policy: dict[str, Any]) -> None:
        """Load a policy from which training may continue."""
        self.load_policy_state(policy)
        self._policy_given = True

    def set_total_steps(self, total_steps: int) -> None:
        """Replace ``config.total_steps``, on which schedules depend."""
        self.config = dataclasses.replace(self.config, total_steps=total_steps)

    def pause(self) -> None:  # noqa: B027  # most agents need nothing
        """Release resources that only training needs; called at the end of :meth:`learn`."""

    def _make_envs(self) -> None:
        """Make the training environments of a loaded agent."""
        if not isinstance(self.envs, NoEnvs):
            return
        check_known(self.config.env_id, "learn")
        self.use_envs(envs_of(self.config, self.config.n_envs, self.config.seed))

    def use_envs(self, envs: Envs) -> None:
        """Let a loaded agent train in these environments.

        Raises:
            UserError: they have other spaces than the agent.
        """
        self.check_spaces(envs)
        envs.transforms = self.envs.transforms
        self.envs = envs

    def check_spaces(self, envs: Any) -> None:
        """Close the environments and raise UserError unless they have the spaces of the agent."""
        spaces = envs.observation_space, envs.action_space
        if spaces != self.spaces:
            envs.close()
            raise UserError(
                f"{self.config.env_id}: expected the spaces of the agent, {short(self.spaces)}, got {short(spaces)}"
            )
