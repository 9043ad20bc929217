"""Tasks of dm_control's suite (Tassa et al. 2018) as Gymnasium environments: ``dmc/DOMAIN-TASK``.

An episode is truncated after 1000 of the suite's steps. Most domains never terminate. Rewards are in [0, 1].
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from automl_ext.training.errors import UserError, needs_extra

PREFIX = "dmc/"


class ControlSuite(gymnasium.Env):
    """A task as an environment. An observation is the concatenation of the task's observations, float32.

    ``render()`` returns the image of the task's first camera.

    Raises:
        UserError: the suite has no such task.
        ModuleNotFoundError: dm_control (extra ``dmc``) is missing.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(self, domain: str, task: str, render_mode: str | None = None) -> None:
        self.domain, self.task, self.render_mode = domain, task, render_mode
        self._load(0)
        action = self.control.action_spec()
        self.action_space = spaces.Box(action.minimum.astype(np.float32), action.maximum.astype(np.float32))
        size = sum(int(np.prod(spec.shape)) for spec in self.control.observation_spec().values())
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def _load(self, seed: int) -> None:
        from dm_control import suite

        try:
            self.control = suite.load(self.domain, self.task, task_kwargs={"random": seed})
        except ValueError as error:
            raise UserError(f"--env-id {PREFIX}{self.domain}-{self.task}: {error}") from None

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._load(seed)
        return self._flat(self.control.reset()), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        step = self.control.step(action)
        terminated = step.last() and step.discount == 0
        return self._flat(step), float(step.reward or 0), terminated, step.last() and not terminated, {}

    def render(self) -> np.ndarray:
        return self.control.physics.render(240, 320, camera_id=0)

    def close(self) -> None:
        self.control.close()

    def _flat(self, step: Any) -> np.ndarray:
        return np.concatenate([np.ravel(x) for x in step.observation.values()]).astype(np.float32)


def register(env_id: str) -> None:
    """Register ``dmc/DOMAIN-TASK`` with Gymnasium.

    Raises:
        UserError: the name has no task.
        ModuleNotFoundError: dm_control is missing; the message names the extra.
    """
    with needs_extra(f"--env-id {env_id}", "dmc"):
        import dm_control  # noqa: F401
    domain, _, task = env_id.removeprefix(PREFIX).partition("-")
    if not task:
        raise UserError(f"--env-id {env_id}: expected {PREFIX}DOMAIN-TASK, for example {PREFIX}cartpole-swingup")
    if env_id not in gymnasium.registry:
        gymnasium.register(env_id, "automl_ext.rl.envs.dmc:ControlSuite", kwargs={"domain": domain, "task": task})
