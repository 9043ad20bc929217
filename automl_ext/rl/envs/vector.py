"""Parallel environments: the only code that knows how Gymnasium's vector environments end and restart episodes.

Gymnasium has three ways to restart an episode (``AutoresetMode``). NEXT_STEP: the step after an episode's end ignores
the action and returns the new episode's first observation. This is not a transition, so it is not ``valid``, and its
reward counts as 0. SAME_STEP: the step that ends an episode returns the new episode's first observation, and the true
next one is in ``info["final_obs"]``. DISABLED: the caller restarts the episodes that ended. :class:`Envs` hides all
three: ``next_observations`` is always the true next observation.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from automl_ext.rl.envs import workers
from automl_ext.rl.envs.given import others
from automl_ext.rl.envs.groups import GroupedBox
from automl_ext.rl.envs.guard import STEP, EnvError, Guard, check_observation, fault, restore_torch, torch_settings
from automl_ext.rl.envs.making import make_vector
from automl_ext.rl.envs.options import EnvOptions, frames_of
from automl_ext.rl.envs.packed import MASK, PackedBox, add_axis, float32_array, float32_space, mask_sizes, packed_space
from automl_ext.rl.envs.state import restore_simulators, simulators_state
from automl_ext.training.errors import UserError
from automl_ext.training.seeding import derived_seed

NAMES, KINDS = ("rewards", "terminated", "truncated"), ("biuf", "b", "b")  # results of a step and their dtype kinds


class Step(NamedTuple):
    """One step of every environment.

    Attributes:
        observations: [B, ...], before the action.
        actions: [B, ...].
        rewards: float32 [B], clipped if ``reward_clip`` is set.
        next_observations: [B, ...], the true next observations: the final observation where an episode ended.
        terminated, truncated: bool [B]. Bootstrap from the final observation of a truncated episode, but not of a
            terminated one.
        valid: bool [B], False where the step only restarted an episode, or an agent that is done waits for the others.
            Such a step is not a transition. Also False where the caller of :meth:`Envs.step` drops the step.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray


class StepTransform(Protocol):
    """A change of every step before the agent sees it, such as an exploration bonus added to the rewards.

    It changes neither the reported returns nor the evaluation. Checkpoints contain its state. It may have ``cut()``,
    which is called when the running episodes are aborted.
    """

    def __call__(self, step: Step) -> Step: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Episode(NamedTuple):
    """A finished episode: undiscounted return without clipping, length in steps, number of the environment."""

    episode_return: float
    length: int
    env: int


class Envs:
    """``n_envs`` environments stepped together.

    Args:
        vector: a Gymnasium vector environment, in any autoreset mode.
        seed: determines all episodes. Adjacent seeds have no episodes in common.
        reward_clip: clip the rewards of :class:`Step` to ±this value. Returns of episodes are not clipped.
        env_id: the environment's id, for messages and for agents, which make the environments of evaluations by this
            id.
        step_timeout: time limit of a reset or a step of worker processes (AsyncVectorEnv), in seconds.

    Attributes:
        observations: [B, ...], the current observations. Floats are converted to float32; uint8 images stay uint8.
            ``observation_space`` describes them. Observations of other spaces than Box, and those with action masks,
            are packed: see :class:`~automl_ext.rl.envs.packed.PackedBox`.
        running_returns: float64 [B], the undiscounted return so far of each running episode.
        episodes: the finished episodes. The reader empties the list.
        steps: number of transitions so far, over all environments. Steps that are not valid do not count.
        frame_stack: number of the last frames that observations stack along their first axis, so that a replay can
            store each frame once; set by :func:`make_envs`. 1: observations are not stacks.
        heartbeat: if not None, called after every step, so that another process can detect a hang.
        transforms: applied to the result of every :meth:`step`, in this order.

    Raises:
        UserError: an unsupported autoreset mode, observations that are not arrays of numbers, actions without numbers,
            or action masks for actions that are neither Discrete nor MultiDiscrete.
        EnvError: the environments' own code failed, see :meth:`step`.
    """

    observations: np.ndarray
    running_returns: np.ndarray
    _restarting: np.ndarray  # bool [B], True where the next step is a restart
    _lives: np.ndarray | None  # [B], of Atari
    _begun: np.ndarray  # int64 [B], number of calls before each running episode's first step
    _no_rewards: np.ndarray  # zeros, for _check_finite
    _no_observations: np.ndarray | None

    def __init__(
        self,
        vector: VectorEnv[Any, Any, Any],
        seed: int,
        reward_clip: float | None = None,
        env_id: str = "",
        step_timeout: float = EnvOptions.step_timeout,
    ) -> None:
        self.vector, self.n_envs, self.seed, self.reward_clip = vector, vector.num_envs, seed, reward_clip
        self.env_id = env_id
        self.action_space = vector.single_action_space
        self._where, self._step_timeout = f"--env-id {env_id}: " * bool(env_id), step_timeout
        try:
            if 0 in (self.action_space.shape or ()):
                raise UserError(f"actions: expected numbers, got shape {self.action_space.shape}")
            self.observation_space = packed_space(float32_space(vector.single_observation_space), self.action_space)
        except UserError as error:
            vector.close()
            raise UserError(f"{self._where}{error}") from None
        self.heartbeat: Callable[[], None] | None = None
        self.transforms: list[StepTransform] = []
        # Discrete spaces with a dtype of their own contain no int64.
        self._action_dtype = self.action_space.dtype if isinstance(self.action_space, spaces.Discrete) else None
        self._packed = self.observation_space if isinstance(self.observation_space, PackedBox) else None
        mode = vector.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise UserError(f"autoreset mode: expected an AutoresetMode in metadata['autoreset_mode'], got {mode!r}")
        if isinstance(vector.unwrapped, SyncVectorEnv) and mode == AutoresetMode.SAME_STEP:
            # It resets an environment before it returns its final observation. Guard copies that, because it may be the
            # environment's own array.
            named = enumerate(vector.unwrapped.envs)
            vector.unwrapped.envs = [e if isinstance(e, Guard) else Guard(e, f"environment {i}") for i, e in named]
        self._processes = vector.unwrapped if isinstance(vector.unwrapped, AsyncVectorEnv) else None
        if self._processes is not None:
            workers.set_limit(self._processes, step_timeout)
        self._next_step, self._disabled = mode == AutoresetMode.NEXT_STEP, mode == AutoresetMode.DISABLED
        self._waits = getattr(vector, "waits", False)
        self._shape = (self.n_envs,)
        self._broken = False
        self.steps, self._calls = 0, 0
        self.episodes: list[Episode] = []
        self.frame_stack, self.terminal_on_life_loss = 1, False
        self.reset()

    @property
    def starting(self) -> np.ndarray:
        """Whether :attr:`observations` starts an episode, bool [B]. Recurrent policies must then reset their state."""
        return self._begun == self._calls

    def step(self, actions: np.ndarray, kept: np.ndarray | None = None) -> Step:
        """Act in every environment and update :attr:`observations`.

        Args:
            actions: [B, ...].
            kept: bool [B], False where the agent drops the step. It is not ``valid`` then, so the transforms do not
                learn from it either, but it counts in :attr:`steps`.

        Raises:
            EnvError: an exception in an environment's own code, SystemExit included; results that do not follow
                Gymnasium's API; a reward or an observation that is NaN or infinite; a worker process that died or
                took longer than ``step_timeout``. The message names the environment and the step. Environments in
                this process cannot be interrupted.
        """
        before = self.observations
        taken = actions
        if self._action_dtype is not None and actions.dtype.kind in "iu":
            taken = actions.astype(self._action_dtype, copy=False)
        after, rewards, terminated, truncated, info = self._step_vector(taken)
        self._calls += 1
        if self.heartbeat is not None:
            self.heartbeat()
        if rewards.dtype != np.float32:
            with np.errstate(over="ignore"):  # _check_finite raises an error for infinite rewards
                rewards = rewards.astype(np.float32)
        restarting = self._restarting.tobytes().count(1)
        if self._next_step and restarting:  # what a restart returns is no result of an action
            for part in (rewards, terminated, truncated):
                part[self._restarting] = 0
        # In C order: CartPole's vector environment returns transposed arrays, which a network rounds differently.
        # Copied, because a vector environment may return the same arrays at every step.
        true_next = after = np.array(after, np.float32 if after.dtype.kind == "f" else None, order="C")
        done = terminated | truncated
        ended = done.nonzero()[0]
        valid = ~self._restarting
        if self._next_step:
            self._restarting = done
        elif ended.size:
            if self._disabled:
                after = after.copy()
                after[ended] = self._restart(done)[ended]
            else:
                true_next = after.copy()
                for i in ended:
                    true_next[i] = self._final(info, i)
        if self._waits:  # agents that are done before the others, see automl_ext.rl.envs.lanes
            self._restarting = info["waiting"]
            self._begun[~valid & ~self._restarting] = self._calls
        if self._packed is not None and self._packed.actions:
            self._check_masks(true_next, ~terminated)
            if true_next is not after:  # episodes have begun
                self._check_masks(after, np.ones(self.n_envs, bool))
        self._check_finite("reward", rewards, self._no_rewards)
        if self._no_observations is not None:
            self._check_finite("observation", true_next, self._no_observations)
        self.running_returns += rewards  # 0 in a restart
        self.steps += self.n_envs - restarting
        if ended.size:
            self._end_episodes(ended)
        self.observations = after
        if self.reward_clip is not None:
            rewards = np.clip(rewards, -self.reward_clip, self.reward_clip)
        if self.terminal_on_life_loss:
            terminated = terminated | (info["lives"] < self._lives)
            self._lives = info["lives"].copy()
        if kept is not None:
            valid &= kept
        step = Step(before, actions, rewards, true_next, terminated, truncated, valid)
        for transform in self.transforms:
            step = transform(step)
        return step

    def render(self) -> Any:
        """Return an image of each environment; they must be made with ``render``."""
        try:
            return self.vector.render()
        except BaseException as error:
            raise self._fault("render()", error) from None

    def close(self) -> None:
        """Close the environments and end worker processes, whatever their state."""
        if self._processes is not None:
            workers.close(self._processes, self._broken)
        self.vector.close()

    def state_dict(self) -> dict[str, Any]:
        """Return all counts, and the simulators if they can be saved (:mod:`automl_ext.rl.envs.state`)."""
        return {
            "transforms": [transform.state_dict() for transform in self.transforms],
            "simulators": simulators_state(self.vector),
            "observations": torch.from_numpy(self.observations.copy()),
            "restarting": torch.from_numpy(self._restarting.copy()),
            "returns": torch.from_numpy(self.running_returns.copy()),
            "begun": torch.from_numpy(self._begun.copy()),
            "episodes": [tuple(episode) for episode in self.episodes],
            "steps": self.steps,
            "calls": self._calls,
        }

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Restore :meth:`state_dict`.

        Returns:
            True if the state was restored exactly. False, with a warning, if the simulators were not saved: all
            environments start new episodes, determined by the seed and the number of steps. Then call ``cut()`` of a
            replay.

        Raises:
            ValueError: the state has another number of environments, other observations or other transforms.
        """
        saved = state["observations"].numpy()
        if saved.shape != self.observations.shape or saved.dtype != self.observations.dtype:
            own = self.observations
            raise ValueError(
                f"state: observations: expected {own.dtype} {list(own.shape)}, got {saved.dtype} {list(saved.shape)}"
            )
        if len(state["transforms"]) != len(self.transforms):
            raise ValueError(f"state: transforms: expected those of {self.transforms}, got {len(state['transforms'])}")
        for transform, saved_transform in zip(self.transforms, state["transforms"], strict=True):
            transform.load_state_dict(saved_transform)
        self.steps, self._calls = state["steps"], state["calls"]
        self.episodes = [Episode(*episode) for episode in state["episodes"]]
        if not restore_simulators(self.vector, state["simulators"]):
            warnings.warn(f"{self._where}{self.vector}: its state cannot be saved; new episodes start", stacklevel=2)
            self.reset()
            return False
        self.observations = saved.copy()
        self._restarting = state["restarting"].numpy().copy()
        self.running_returns, self._begun = state["returns"].numpy().copy(), state["begun"].numpy().copy()
        return True

    def reset(self) -> None:
        """Abort the running episodes and start new ones, determined by the seed and the number of steps."""
        try:
            first, info = self._reset_vector(seed=derived_seed(self.seed, self.steps))
            if MASK in info and (self._packed is None or not self._packed.actions):
                self._take_masks()
            first = self._read("reset()", first, info)
        except BaseException as error:
            self._broken = True
            self.close()
            raise self._fault("reset()", error) from None
        if self._packed is not None and self._packed.actions:
            self._check_masks(first, np.ones(self.n_envs, bool))
        self.observations = float32_array(first.copy())
        self._lives = np.array(info["lives"]) if "lives" in info else None
        self._restarting = np.zeros(self.n_envs, bool)
        self.running_returns = np.zeros(self.n_envs)
        self._begun = np.full(self.n_envs, self._calls)
        self._no_rewards = np.zeros(self.n_envs, np.float32)
        for transform in self.transforms:
            if hasattr(transform, "cut"):
                transform.cut()
        self._no_observations = np.zeros(first.size, first.dtype) if first.dtype.kind == "f" else None
        self._check_finite("observation", self.observations, self._no_observations)

    def others(self, n: int, seed: int) -> Envs | None:
        """Make n environments like these, without clipping of rewards; None if it is not known how they were made.

        Raises:
            EnvError: the environments' own code failed.
        """
        before = torch_settings()
        try:
            vector = others(self.vector, n, seed, self._step_timeout)
        finally:
            restore_torch(before)
        return None if vector is None else Envs(vector, seed, step_timeout=self._step_timeout)

    def lent(self, seed: int) -> Lent:
        """Abort the running episodes, and return the same environments in an object whose ``close`` does nothing.

        Afterwards call :meth:`reset`.
        """
        return Lent(self.vector, seed, step_timeout=self._step_timeout)

    def _calling(self, call: str) -> AbstractContextManager[None]:
        if self._processes is None:
            return nullcontext()
        return workers.naming_faults(self._processes, call, self._step_timeout)

    def _reset_vector(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        before = torch_settings()
        try:
            with self._calling("reset()"):
                return self.vector.reset(**arguments)
        finally:
            restore_torch(before)

    def _restart(self, done: np.ndarray) -> np.ndarray:
        """Start new episodes where the last one is done, bool [B]; return the observations [B, ...]."""
        try:
            first, info = self._reset_vector(options={"reset_mask": done.copy()})
            return float32_array(self._read("reset()", first, info))
        except BaseException as error:
            self._broken = True
            raise self._fault("reset()", error) from None

    def _step_vector(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        before = torch_settings()
        try:
            with self._calling("step()"):
                result: Any = self.vector.step(actions)
            if len(result) != 5:
                raise EnvError(f"step() must return {STEP}, got {len(result)} values")
            observations = self._read("step()", result[0], result[4])
            found = np.array(result[1]), np.array(result[2]), np.array(result[3])
            for name, array, kinds in zip(NAMES, found, KINDS):  # noqa: B905  # strict=True takes longer
                if array.dtype.kind not in kinds or array.shape != self._shape:
                    raise EnvError(f"step() returned {name} that are {array.dtype} {list(array.shape)}")
            return observations, *found, result[4]
        except BaseException as error:  # after any exception, Ctrl-C included, the workers are in an unknown state
            self._broken = True
            raise self._fault("step()", error) from None
        finally:
            restore_torch(before)

    def _take_masks(self) -> None:
        """Let observations contain the masks that the environments have in their info dictionaries."""
        space = self.vector.single_observation_space
        if isinstance(space, GroupedBox):
            raise UserError(f"{MASK}: not possible with several agents or tasks")
        self.observation_space = self._packed = PackedBox(float32_space(space), mask_sizes(self.action_space))

    def _read(self, call: str, observations: Any, info: dict[str, Any]) -> np.ndarray:
        """Return checked observations [B, ...], packed if they are not plain arrays."""
        if self._packed is None:
            space: Any = self.vector.observation_space
            if getattr(observations, "shape", None) != space.shape or observations.dtype != space.dtype:
                observations = check_observation(f"{call} returned observations", observations, space)
            result: np.ndarray = observations
            return result
        return self._pack(call, observations, self.n_envs, info.get(MASK))

    def _final(self, info: dict[str, Any], env: int) -> Any:
        """Return the final observation of an episode that ended in this step."""
        final = info.get("final_obs")
        if final is None:
            self._broken = True
            raise EnvError(
                f"{self._where}step() returned no final_obs in its info (autoreset mode SAME_STEP), "
                f"at step {self._calls}"
            )
        observation = final[env]
        if self._packed is None:
            return observation
        masks = info.get("final_info", {}).get(MASK)
        batch = add_axis(self._packed.space, observation)
        return self._pack("step()", batch, 1, None if masks is None else masks[env : env + 1])

    def _pack(self, call: str, observations: Any, n: int, masks: Any) -> np.ndarray:
        """Pack n observations. Without masks, no action is allowed: an error unless the episode has terminated."""
        assert self._packed is not None
        try:
            zeros = np.zeros((n, sum(self._packed.actions)))
            return self._packed.pack(observations, n, zeros if masks is None else masks)
        except ValueError as error:
            raise EnvError(f"{call} returned {error}") from None

    def _check_masks(self, observations: np.ndarray, acting: np.ndarray) -> None:
        """Check that an action is allowed wherever ``acting``, bool [B], and allow all actions elsewhere if none is."""
        assert self._packed is not None
        actions = self._packed.actions
        stuck = (self._packed.free_stuck(observations) & acting).nonzero()[0]
        if stuck.size:
            self._broken = True
            raise EnvError(
                f"{self._where}{MASK}: missing or all False in environment {stuck[0]} at its step {self._calls}: "
                f"expected {sum(actions)} numbers that allow at least one value of each of the "
                f"{len(actions)} actions, unless the episode has terminated"
            )

    def _fault(self, call: str, error: BaseException) -> BaseException:
        """Convert an exception of the environments' code into a one-line error."""
        if not isinstance(error, UserError):
            return fault(f"{self._where}environments", call, error)
        step = f", at step {self._calls + 1}" if call == "step()" else ""
        return type(error)(f"{self._where}{error}{step}")

    def _end_episodes(self, ended: np.ndarray) -> None:
        for i in ended.tolist():
            self.episodes.append(Episode(float(self.running_returns[i]), int(self._calls - self._begun[i]), i))
        self.running_returns[ended], self._begun[ended] = 0.0, self._calls + self._next_step

    def _check_finite(self, name: str, x: np.ndarray, zeros: np.ndarray | None) -> None:
        if zeros is None or not math.isnan(x.ravel().dot(zeros)):  # takes half the time of isfinite().all()
            return
        finite = np.isfinite(x).reshape(len(x), -1)
        bad = np.flatnonzero(~finite.all(axis=1))[0]
        index = np.flatnonzero(~finite[bad])[0]
        value = x.reshape(len(x), -1)[bad, index]
        place = f" at index {[int(i) for i in np.unravel_index(index, x.shape[1:])]}" if x.ndim > 1 else ""
        raise EnvError(
            f"{self._where}{name}: not finite in environment {bad} at its step {self._calls}: {value}{place}"
        )


class Lent(Envs):
    """The environments of another :class:`Envs`, which owns and closes them."""

    def close(self) -> None:
        """Do nothing."""


@dataclass
class NoEnvs:
    """Stands in for :class:`Envs` in a loaded agent, which needs no environments to act."""

    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    n_envs: int
    frame_stack: int = 1
    steps: int = 0
    episodes: list[Any] = field(default_factory=list)
    transforms: list[Any] = field(default_factory=list)  # of the environments that replace this object

    def close(self) -> None:
        """Do nothing."""


def make_envs(env_id: str, n_envs: int, seed: int, options: EnvOptions | None = None, *, render: bool = False) -> Envs:
    """Make parallel environments.

    Args:
        env_id: Gymnasium id; see :func:`automl_ext.rl.envs.making.make_vector` for other packages.
        n_envs: number of environments, at least 1; with several agents or tasks, number of copies of each.
        seed: determines all episodes.
        options: None for the defaults.
        render: make environments that can render images.

    Raises:
        UserError: the environment does not exist or does not take these options.
        EnvError: the environment's own code failed.
        ModuleNotFoundError: a package is not installed; the message names the extra.
    """
    options, before = options or EnvOptions(), torch_settings()
    try:
        vector = make_vector(env_id, n_envs, options, render)
    finally:
        restore_torch(before)
    envs = Envs(vector, seed, options.reward_clip, env_id, options.step_timeout)
    envs.frame_stack = frames_of(env_id, options, envs.observation_space)
    envs.terminal_on_life_loss = options.terminal_on_life_loss
    return envs
