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

import contextlib
import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import process_time
from typing import Any

import gymnasium
import torch
from torch import Tensor

from automl_ext.rl.algorithms.a2c import A2C, A2CConfig
from automl_ext.rl.envs import callables, given
from automl_ext.rl.loop.policy_agent import PolicyAgent
from automl_ext.rl.loop.worker_processes import WorkerProcesses, received
from automl_ext.training.checks import check_range
from automl_ext.training.errors import UserError
from automl_ext.training.machine.memory import check_memory, keep_freed_memory
from automl_ext.training.machine.worker_context import worker_context
from automl_ext.training.seeding import derived_seed

PROCESS = 100 << 20  # lower bound of a worker's memory in bytes, without the memory shared between processes
LEG = 5_000  # steps. If the parent is killed, a worker ends at the end of its leg


@dataclass
class A3CConfig(A2CConfig):
    """Configuration of A3C. Every worker uses the options of A2C."""

    n_envs: int = 8  # Number of environments of each worker.
    normalize_rewards: bool = False  # Not for A3C, whose workers share no statistics.
    n_workers: int = 2  # Number of worker processes; use one core for each and set OMP_NUM_THREADS=1.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "n_workers", low=1)
        if self.optimizer != "rmsprop" or self.device != "cpu":
            raise ValueError(
                f"device, optimizer: expected cpu and rmsprop for A3C, got {self.device!r} and {self.optimizer!r}"
            )
        for name in ("normalize_observations", "normalize_rewards"):
            if getattr(self, name):
                raise ValueError(f"{name}: expected False for A3C, whose workers share no statistics; use a2c")
        if self.popart:
            raise ValueError("popart: expected False for A3C, whose workers share no statistics of values; use a2c")
        if self.env.vectorization == "async":
            raise ValueError(
                "vectorization: expected auto, sync or vector_entry_point for A3C, got async: its workers "
                "are processes already and cannot start processes"
            )


@dataclass
class Shared:
    """State that all processes share: tensors in shared memory and the step count.

    Attributes:
        parameters: all parameters of the network as one vector.
        square_avg: RMSprop's running averages of squared gradients.
        steps: number of environment steps so far, a multiprocessing Value.
        heartbeats: int64 [n_workers]; each worker increments its entry at every step. 0: its process starts;
            1: it makes its environments.
    """

    parameters: Tensor
    square_avg: Tensor
    steps: Any
    heartbeats: Tensor


@torch.no_grad()
def shared_rmsprop(
    parameters: Tensor, gradient: Tensor, square_avg: Tensor, lr: float, alpha: float = 0.99, eps: float = 1e-5
) -> None:
    """Update parameters θ [n] and statistics s [n] with a gradient g [n], in place:

    s ← α s + (1 − α) g²,  θ ← θ − lr · g / √(s + ε)

    ε is inside the root. ``torch.optim.RMSprop`` has it outside, and takes larger steps where gradients are small.
    """
    square_avg.mul_(alpha).addcmul_(gradient, gradient, value=1 - alpha)
    parameters.addcdiv_(gradient, (square_avg + eps).sqrt_(), value=-lr)


def leg(learner: A2C, shared: Shared, until: int) -> dict[str, float]:
    """Update the shared parameters until the shared step count reaches ``until``; return the means of the metrics."""
    config = learner.config
    gradient = learner.parameters.grad
    assert gradient is not None
    sums: dict[str, Any] = defaultdict(float)
    updates = 0
    while shared.steps.value < until:
        before = learner.envs.steps
        learner.parameters.data.copy_(shared.parameters)
        rollout = learner.rollout()
        for name, value in learner.compute_gradient(rollout).items():
            sums[name] += value
        learner.network.saw(rollout.observations)
        with shared.steps.get_lock():
            shared.steps.value += learner.envs.steps - before
        remaining = max(0.0, 1 - shared.steps.value / config.total_steps) if config.lr_decay else 1.0
        shared_rmsprop(shared.parameters, gradient, shared.square_avg, config.lr * remaining)
        updates += 1
    return {name: float(total) / updates for name, total in sums.items()}


def work(worker: int, config: A3CConfig, shared: Shared, pipe: Connection) -> None:
    """Run a worker process: one leg for every step count received through ``pipe``, until the pipe is closed.

    The reply to a step count is (metrics, episodes, CPU seconds), or the message of a :class:`UserError`.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    seed = derived_seed(config.seed, worker + 1, shared.steps.value)
    heartbeats = shared.heartbeats.numpy()

    def beat() -> None:
        heartbeats[worker] += 1

    try:
        beat()
        learner = A2C(dataclasses.replace(config, seed=seed))
        beat()
        learner.envs.heartbeat = beat
        try:
            for until in received(pipe):
                start = process_time()
                metrics = leg(learner, shared, until)
                episodes = [tuple(episode) for episode in learner.envs.episodes]
                learner.envs.episodes.clear()
                pipe.send((metrics, episodes, process_time() - start))
        finally:
            learner.envs.close()
    except UserError as error:
        with contextlib.suppress(BrokenPipeError):  # another worker failed first and the parent has closed the pipe
            pipe.send(str(error))
    except BrokenPipeError:
        pass  # the parent is gone


class A3C(PolicyAgent):
    """The A3C agent; see :class:`automl_ext.rl.loop.agent.Agent`.

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

    envs: WorkerProcesses
    algorithm = "a3c"
    honors = frozenset({"initial"})

    def __init__(self, config: A3CConfig, spaces: Any = None) -> None:
        self.config = config
        if config.env_id.startswith((callables.PREFIX, given.PREFIX)):
            got = "an object" if config.env_id.startswith(given.PREFIX) else "a callable"
            raise UserError(
                f"env: expected an environment id for a3c, for example module:MyEnv-v0, got {got}: its workers are "
                "other processes"
            )
        check_memory("n_workers", config.n_workers * PROCESS)
        # The parent's copy of the network; its environments only provide their spaces.
        self.learner = A2C(config, spaces)
        self.learner.envs.close()
        self.network, self.device, self.eval_rng = self.learner.network, self.learner.device, self.learner.eval_rng
        parameters = self.learner.parameters.detach()
        shared = Shared(
            parameters.clone().share_memory_(),
            torch.zeros_like(parameters).share_memory_(),
            worker_context().Value("q", 0),
            torch.zeros(config.n_workers, dtype=torch.int64).share_memory_(),
        )
        self.shared, self.envs = shared, WorkerProcesses(work, config, shared)
        self.attach_extras()

    def attach_extras(self) -> None:
        for extra in self.config.extras.each():
            if extra.seams != {"rewards"}:  # the agents of the workers attach these to their environments
                self.attach(extra)

    def prepare(self, resuming: bool = False) -> None:
        super().prepare(resuming)
        if not self.envs.steps:
            self.shared.parameters.copy_(self.learner.parameters.detach())

    def iterate(self) -> dict[str, Any]:
        """Run one leg; return scalar metrics.

        A leg ends at the next multiple of LEG, evaluation, checkpoint or the end of training, whichever comes first.
        """
        self.set_initial_policy()
        steps, config = self.envs.steps, self.config
        marks = LEG, config.eval_every, config.checkpoint_every
        end = min((steps // mark + 1) * mark for mark in marks)
        metrics = self.envs.run(min(end, config.total_steps) if steps < config.total_steps else end)
        self.learner.parameters.data.copy_(self.shared.parameters)
        return metrics

    @property
    def spaces(self) -> tuple[gymnasium.Space, gymnasium.Space]:
        return self.learner.spaces

    def set_policy(self, policy: dict[str, Any]) -> None:
        super().set_policy(policy)
        self.shared.parameters.copy_(self.learner.parameters.detach())

    def set_total_steps(self, total_steps: int) -> None:
        super().set_total_steps(total_steps)
        self.envs.config = self.learner.config = self.config

    def pause(self) -> None:
        self.envs.close()  # the workers

    def state_dict(self) -> dict[str, Any]:
        """Return the parameters, the statistics of RMSprop and the step count.

        The workers' environments are not saved; new episodes start after a resume.
        """
        return {
            "network": self.network.state_dict(),
            "square_avg": self.shared.square_avg.clone(),
            "steps": self.envs.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.shared.parameters.copy_(self.learner.parameters.detach())
        self.shared.square_avg.copy_(state["square_avg"])
        self.shared.steps.value = state["steps"]
