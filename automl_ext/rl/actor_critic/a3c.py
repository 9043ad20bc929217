"""A3C: asynchronous advantage actor-critic (Mnih et al. 2016, https://arxiv.org/abs/1602.01783, algorithm S3).

Every worker process repeats:
    copy the shared parameters
    act for ``n_steps``; compute the gradient of A2C's loss
    apply the gradient to the shared parameters with RMSprop, whose statistics are shared too

The updates use no locks (Hogwild, Recht et al. 2011). They may interleave, so a run is not reproducible.

Workers run in legs of a few thousand steps and pause between legs. The parent evaluates, saves checkpoints and measures
times during the pauses, when the shared parameters do not change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
import torch.multiprocessing as mp

from automl_ext.rl.actor_critic.a2c import A2C
from automl_ext.rl.actor_critic.a3c_config import A3CConfig
from automl_ext.rl.actor_critic.a3c_workers import ActorProcesses, Shared
from automl_ext.rl.envs.callables import PREFIX
from automl_ext.rl.loop import loop
from automl_ext.rl.loop.learning import LearningAgent
from automl_ext.training.errors import UserError
from automl_ext.training.machine.memory import check_memory

PROCESS = 100 << 20  # lower bound of a worker's memory in bytes, without the memory shared between processes
LEG = 5_000  # steps. If the parent is killed, a worker ends at the end of its leg


class A3C(LearningAgent):
    """The A3C agent; see :class:`automl_ext.rl.loop.learning.LearningAgent`.

    The worker processes start in the first :meth:`iterate`. ``envs.close()`` and the end of :meth:`learn` terminate
    them. Workers are new processes, so they cannot use environments made by a callable of this process. Every worker
    imports the main script, so a script that uses this class must guard its entry point with ``if __name__ ==
    "__main__":``.

    Args:
        config: settings, and the environments to make.
        spaces: has the attributes ``observation_space`` and ``action_space``. None: the environments are made once to
            read them.

    Raises:
        UserError: unsupported observation or action space; workers that do not fit into memory; an environment made by
            a callable.
        EnvError: raised by :meth:`iterate` if the environment of a worker fails, or if a worker dies or makes no step
            for ``env.step_timeout`` seconds. All workers are then terminated.
    """

    envs: ActorProcesses
    algorithm = "a3c"

    def __init__(self, config: A3CConfig, spaces: Any = None) -> None:
        self.config = config
        if config.env_id.startswith(PREFIX):
            raise UserError(
                "env: expected an environment id for a3c, for example module:MyEnv-v0, got a callable: its workers are "
                "other processes"
            )
        check_memory("n_workers", config.n_workers * PROCESS)
        # The parent's copy of the network; its environments only provide their spaces.
        self.learner = A2C(config, spaces)
        self.learner.envs.close()
        parameters = self.learner.parameters.detach()
        shared = Shared(
            parameters.clone().share_memory_(),
            torch.zeros_like(parameters).share_memory_(),
            mp.get_context("spawn").Value("q", 0),
            torch.zeros(config.n_workers, dtype=torch.int64).share_memory_(),
        )
        self.shared, self.envs = shared, ActorProcesses(config, shared)

    def prepare(self, resuming: bool = False) -> None:
        if not self.envs.steps:
            self.learner.prepare(resuming)
            self.shared.parameters.copy_(self.learner.parameters.detach())

    def iterate(self) -> dict[str, Any]:
        """Run one leg; return scalar metrics.

        A leg ends at the next multiple of LEG, evaluation, checkpoint or the end of training, whichever comes first.
        """
        steps, config = self.envs.steps, self.config
        marks = LEG, config.eval_every, config.checkpoint_every
        end = min((steps // mark + 1) * mark for mark in marks)
        metrics = self.envs.run(min(end, config.total_steps) if steps < config.total_steps else end)
        self.learner.parameters.data.copy_(self.shared.parameters)
        return metrics

    def act(self, observations: np.ndarray) -> np.ndarray:
        return self.learner.act(observations)

    def begin(self, starting: np.ndarray) -> None:
        self.learner.begin(starting)

    def evaluation_actions(self, observations: np.ndarray) -> np.ndarray:
        return self.learner.evaluation_actions(observations)

    def random_actions(self, observations: np.ndarray) -> np.ndarray:
        return self.learner.random_actions(observations)

    @property
    def spaces(self) -> tuple[gymnasium.Space, gymnasium.Space]:
        return self.learner.spaces

    def set_policy(self, policy: dict[str, Any]) -> None:
        self.load_policy_state(policy)
        self.shared.parameters.copy_(self.learner.parameters.detach())

    def set_total_steps(self, total_steps: int) -> None:
        super().set_total_steps(total_steps)
        self.envs.config = self.learner.config = self.config

    def pause(self) -> None:
        self.envs.close()  # the workers

    def policy_state(self) -> dict[str, Any]:
        return self.learner.policy_state()

    def load_policy_state(self, state: dict[str, Any]) -> None:
        self.learner.load_policy_state(state)

    def state_dict(self) -> dict[str, Any]:
        """Return the parameters, the statistics of RMSprop and the step count.

        The workers' environments are not saved; new episodes start after a resume.
        """
        return {
            "network": self.learner.network.state_dict(),
            "square_avg": self.shared.square_avg.clone(),
            "steps": self.envs.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.network.load_state_dict(state["network"])
        self.shared.parameters.copy_(self.learner.parameters.detach())
        self.shared.square_avg.copy_(state["square_avg"])
        self.shared.steps.value = state["steps"]


def train(
    config: A3CConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train A3C in a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("a3c", A3C, config, out, resume, stop_after)
