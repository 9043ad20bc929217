"""Environments with one fault each, registered as ``Bad/NAME-v0``; importing this module registers them."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

PARENT = os.getpid()


class Bad(gymnasium.Env):
    """An environment with 3-dimensional observations and reward 1 that ends after 10 steps.

    It fails by ``fault`` at its step ``at``, or at action 1.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # as Gymnasium declares it
    healed = False

    def __init__(self, fault: str, at: int | None = 3, render_mode: str | None = None) -> None:
        self.fault, self.at, self.render_mode, self.steps, self.t = fault, at, render_mode, 0, 0
        self.observation_space: spaces.Space = spaces.Box(-1, 1, (3,), np.float32)
        self.action_space: spaces.Space = spaces.Discrete(2)
        if fault == "constructor" or (fault == "worker constructor" and os.getpid() != PARENT):
            raise RuntimeError("no licence\nfor you")
        if fault == "worker dies early" and os.getpid() != PARENT:
            os._exit(3)
        if fault == "dict":
            self.observation_space = spaces.Dict(a=self.observation_space)
        if fault == "no space":
            del self.observation_space
        if fault == "text action":
            self.action_space = spaces.Text(5)
        if fault == "no actions":
            self.action_space = spaces.Box(-1, 1, (0,), np.float32)
        self._change_torch("constructor")

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        self._change_torch("reset")
        if self.fault == "reset":
            raise KeyError("nope")
        observation = np.zeros(3, np.float32)
        return observation if self.fault == "old reset" else (observation, {})

    def step(self, action: Any) -> Any:
        self.t, self.steps = self.t + 1, self.steps + 1
        self._change_torch("step")
        observation = self.np_random.random(3, np.float32)
        result = (observation, 1.0, self.t == 10 and self.fault != "endless", False, {})
        now = action == 1 if self.at is None else self.steps >= self.at
        return FAULTS[self.fault](result) if now and self.fault in FAULTS and not Bad.healed else result

    def render(self) -> Any:
        return None

    def _change_torch(self, call: str) -> None:
        if self.fault == f"torch {call}":
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(False)
            torch.set_default_device("meta")


def _raise(error: BaseException) -> Any:
    raise error


FAULTS = {
    "step": lambda result: _raise(ValueError("boom")),
    "numpy": lambda result: np.zeros(3).reshape(2, 2),
    "shape": lambda result: (result[0][:2], *result[1:]),
    "dtype": lambda result: (result[0].astype(str), *result[1:]),
    "reward": lambda result: (result[0], "1.0", *result[2:]),
    "flag": lambda result: (*result[:2], "False", *result[3:]),
    "nan flag": lambda result: (*result[:2], float("nan"), *result[3:]),
    "flag 2": lambda result: (*result[:3], 2, {}),
    "old step": lambda result: (*result[:3], {}),
    "exit": lambda result: sys.exit(0),
    "interrupt": lambda result: _raise(KeyboardInterrupt()),
    "nan": lambda result: (np.array([0, np.nan, 0], np.float32), *result[1:]),
    "hard exit": lambda result: os._exit(0),
    "kill": lambda result: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda result: time.sleep(1000),
}


class BadVector(VectorEnv):
    """An environment's own vector version that fails in its second step."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int, fault: str, max_episode_steps: int | None = None) -> None:
        self.num_envs, self.fault, self.t = num_envs, fault, 0
        self.single_observation_space = spaces.Box(-1, 1, (3,), np.float32)
        self.observation_space = spaces.Box(-1, 1, (num_envs, 3), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.action_space = spaces.MultiDiscrete([2] * num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros((self.num_envs, 3), np.float32), {}

    def step(self, actions: Any) -> Any:
        self.t += 1
        no = np.zeros(self.num_envs, bool)
        result = np.zeros((self.num_envs, 3), np.float32), np.ones(self.num_envs), no, no, {}
        return FAULTS[self.fault](result) if self.t == 2 else result


class Blind(Bad):
    """An environment whose constructor takes no ``render_mode``."""

    def __init__(self) -> None:
        super().__init__("")


def env_id(fault: str) -> str:
    return f"Bad/{fault.title().replace(' ', '')}-v0"


OTHERS = ["constructor", "worker constructor", "worker dies early", "reset", "old reset", "dict", "no space"]
OTHERS += ["text action", "no actions", "no image", "torch constructor", "torch reset", "torch step"]
for name in [*FAULTS, *OTHERS]:
    gymnasium.register(env_id(name), Bad, max_episode_steps=100, kwargs={"fault": name})
gymnasium.register("Bad/Endless-v0", Bad, kwargs={"fault": "endless"})
gymnasium.register("Bad/Late-v0", Bad, kwargs={"fault": "step", "at": 120})
gymnasium.register("Bad/Blind-v0", Blind)
for name in ("step", "shape", "reward", "old step"):
    gymnasium.register(
        f"BadVector/{name.title().replace(' ', '')}-v0", Bad, vector_entry_point=BadVector, kwargs={"fault": name}
    )
for name in ("step", "exit", "hard exit", "kill", "hang", "old step"):
    gymnasium.register(
        f"BadAction/{name.title().replace(' ', '')}-v0", Bad, max_episode_steps=100, kwargs={"fault": name, "at": None}
    )
