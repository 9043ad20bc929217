"""PettingZoo's parallel environments as vector environments: each agent of each copy is a lane.

Agents then learn from lanes as from single environments. Lane c · A + i is agent i of copy c. An agent that is done
before the others waits until its copy restarts; ``info["waiting"]`` marks its lane, and the steps of such a lane are
not valid. A copy restarts in the step that ends its last agent (autoreset mode SAME_STEP).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from automl_ext.rl.envs.groups import joint_space, marked
from automl_ext.rl.envs.guard import NUMBERS, EnvError, check_observation, number
from automl_ext.rl.envs.packed import MASK, float32_array
from automl_ext.training.errors import UserError, needs_extra
from automl_ext.training.files.reading import short
from automl_ext.training.user_code import import_object

PREFIX = "pettingzoo/"
PACKAGES = ("pettingzoo", "mpe2", "automl_ext")  # whose modules need no trust
STEP = ("observations", "rewards", "terminations", "truncations", "infos")  # what a step returns
FACTORY = "parallel_env"  # the function of PettingZoo's modules that makes a parallel environment


class Lanes(VectorEnv[Any, Any, Any]):
    """Copies of a parallel environment as one vector environment.

    Args:
        makers: functions that make a copy each: objects with PettingZoo's interface ``ParallelEnv``.
        central: append the observations of the other agents, which only a centralized critic sees.

    Raises:
        UserError: the agents' action spaces differ, or their observations cannot be padded to one shape.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012  # as Gymnasium declares it
    waits = True  # Envs reads info["waiting"]

    def __init__(self, makers: Sequence[Callable[[], Any]], central: bool = False) -> None:
        self.copies = [make() for make in makers]
        first = self.copies[0]
        if hasattr(first, "agent_iter"):
            raise UserError(f"expected a parallel environment of PettingZoo, got one whose agents take turns: {first}")
        self.agents, self.central = list(getattr(first, "possible_agents", None) or ()), central
        if not self.agents:
            raise UserError(f"expected a parallel environment of PettingZoo with possible_agents, got {short(first)}")
        self.render_mode = getattr(first, "render_mode", None)  # ParallelEnv declares neither of the two
        self.metadata = self.metadata | {"render_fps": getattr(first, "metadata", {}).get("render_fps")}
        spaces = [first.observation_space(agent) for agent in self.agents]
        if central and any(len(space.shape or ()) != 1 for space in spaces):
            raise UserError(f"central_critic: expected vectors of observations, got {short(spaces[0])}")
        own = max(space.shape[-1] for space in spaces) if central else 0
        self.observation_spaces = spaces
        self.space = joint_space(spaces, self.agents, own * (len(self.agents) - 1))
        self.single_observation_space = self.space
        self.single_action_space = first.action_space(self.agents[0])
        for agent in self.agents:
            if first.action_space(agent) != self.single_action_space:
                expected, got = short(self.single_action_space), short(first.action_space(agent))
                raise UserError(f"agents: expected one action space, got {expected} and {got} of {agent}")
        self.num_envs = len(self.copies) * len(self.agents)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        shape = len(self.copies), len(self.agents)
        self._observations = np.zeros((*shape, *self.space.shape), self.observation_space.dtype)
        self._waiting = np.zeros(shape, bool)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        for c in range(len(self.copies)):
            self._restart(c, None if seed is None else seed + c)
        return self._flat(self._observations).copy(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act in every copy. The actions of waiting lanes are ignored, and their observations stay as they are."""
        shape = self._waiting.shape
        rewards, terminated, truncated = np.zeros(shape, np.float32), np.zeros(shape, bool), np.zeros(shape, bool)
        actions = actions.reshape(*shape, *actions.shape[1:])
        acting = ~self._waiting
        for c, env in enumerate(self.copies):
            chosen = {agent: actions[c, i] for i, agent in enumerate(self.agents) if acting[c, i]}
            observations, *of_step, _ = _unpacked(env.step(chosen), "step()", STEP)
            for i, agent in enumerate(self.agents):
                if acting[c, i]:
                    rewards[c, i], terminated[c, i], truncated[c, i] = (
                        _number(name, of_agents, agent) for name, of_agents in zip(STEP[1:4], of_step, strict=True)
                    )
                    if agent not in env.agents and not terminated[c, i]:
                        truncated[c, i] = True  # the copy ended without a reason for this agent
                self._waiting[c, i] = agent not in env.agents or terminated[c, i] or truncated[c, i]
            self._write(c, "step()", observations, acting[c] & ~terminated[c])
        info: dict[str, Any] = {}
        if (terminated | truncated).any():
            info["final_obs"] = self._flat(self._observations).copy()
            for done in self._waiting.all(1).nonzero()[0].tolist():
                self._restart(done, None)
        info["waiting"] = self._waiting.flatten()
        results = rewards.ravel(), terminated.ravel(), truncated.ravel()
        return self._flat(self._observations).copy(), *results, info

    def render(self) -> tuple[Any, ...]:
        """Return an image for each lane: the image of the copy that the lane belongs to."""
        return tuple(image for env in self.copies for image in [env.render()] * len(self.agents))

    def close_extras(self, **kwargs: Any) -> None:
        for env in self.copies:
            env.close()

    def _restart(self, c: int, seed: int | None) -> None:
        observations, infos = _unpacked(self.copies[c].reset(seed=seed), "reset()", ("observations", "infos"))
        if isinstance(infos, dict) and any(isinstance(info, dict) and MASK in info for info in infos.values()):
            raise UserError(f"{MASK}: not possible with several agents")
        if list(self.copies[c].agents) != self.agents:
            raise EnvError(f"reset() must start all of the agents {self.agents}, got {list(self.copies[c].agents)}")
        self._write(c, "reset()", observations, np.ones(len(self.agents), bool))
        self._waiting[c] = False

    def _write(self, c: int, call: str, observations: dict[str, Any], needed: np.ndarray) -> None:
        """Store the observations of a copy. Those of agents that are ``needed`` (bool [agents]) must be there."""
        space, rows = self.space, self._observations[c]
        for i, agent in enumerate(self.agents):
            if agent in observations:
                returned = f"{call} returned an observation of agent {agent}"
                found = check_observation(returned, observations[agent], self.observation_spaces[i])
                rows[i] = marked(float32_array(found), i, space)
            elif needed[i]:
                raise EnvError(f"{call}: observations has no entry of agent {agent}")
        if self.central:
            for i, row in enumerate(rows):
                row[space.visible :] = np.delete(rows[:, : space.own], i, axis=0).ravel()

    def _flat(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(self.num_envs, *x.shape[2:])


def _unpacked(result: Any, call: str, names: tuple[str, ...]) -> tuple[Any, ...]:
    """Return the results of a call, one for each name."""
    if not isinstance(result, tuple) or len(result) != len(names):
        raise EnvError(f"{call} must return ({', '.join(names)}), as PettingZoo's API says, got {short(result)}")
    return result


def _number(name: str, of_agents: dict[str, Any], agent: str) -> float:
    """Return an agent's entry of one of the dictionaries that a step returns."""
    if agent not in of_agents:
        raise EnvError(f"step(): {name} has no entry of agent {agent}")
    value = of_agents[agent]
    return float(value) if isinstance(value, NUMBERS) else number(f"step() returned {name} of agent {agent}", value)


def check_package(env_id: str) -> None:
    """Check that the package of ``pettingzoo/MODULE`` is known and installed.

    Raises:
        UserError: another package.
        ModuleNotFoundError: pettingzoo or mpe2 is missing; the message names the extra.
    """
    package = env_id.removeprefix(PREFIX).partition(".")[0]
    if ":" in env_id:
        return
    if package not in PACKAGES:
        raise UserError(f"--env-id {env_id}: expected a module of pettingzoo or mpe2, or your own MODULE:FUNCTION")
    with needs_extra(f"--env-id {env_id}", "multi-agent"):
        __import__(package)


def make_lanes(
    env_id: str, n_copies: int, central: bool, render: bool, arguments: dict[str, Any] | None = None
) -> Lanes:
    """Make copies of ``pettingzoo/MODULE``, or of the user's ``pettingzoo/MODULE:FUNCTION``.

    The module belongs to pettingzoo or mpe2, for example ``mpe2.simple_spread_v3``, and its ``parallel_env`` is called.

    Raises:
        UserError: the module or the function does not exist.
    """
    name = env_id.removeprefix(PREFIX)
    factory = import_object(name if ":" in name else f"{name}:{FACTORY}", "--env-id")
    kwargs = (arguments or {}) | ({"render_mode": "rgb_array"} if render else {})
    return Lanes([functools.partial(factory, **kwargs)] * n_copies, central)
