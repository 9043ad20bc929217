"""A3C: asynchronous advantage actor-critic (Mnih et al. 2016, https://arxiv.org/abs/1602.01783, algorithm S3).

Every worker process repeats: copy the shared parameters, act for ``n_steps``, find the gradient of A2C's loss, and
apply it to the shared parameters with RMSprop whose statistics are shared too; without locks (Hogwild, Recht et al.
2011): updates may interleave, so that a run is not reproducible.

Workers run in legs. Between two the parent has all of them stand still, so that evaluation, checkpoints and measured
times see one state and nothing in motion.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

from automl_ext.rl.actor_critic.a2c import A2C, A2CConfig, make_optimizer
from automl_ext.rl.envs.guard import EnvError
from automl_ext.rl.envs.vector import Episode
from automl_ext.rl.envs.workers import how_ended
from automl_ext.rl.loop import loop
from automl_ext.rl.loop.agent import Agent
from automl_ext.training.checks import check_range
from automl_ext.training.errors import UserError
from automl_ext.training.memory import check_memory
from automl_ext.training.seeding import derived_seed

PROCESS = 100 << 20  # bytes that a worker takes at least, beside what it shares with the others
LEG = 5_000  # steps; a worker whose parent was killed notices when its leg is over


@dataclass
class A3CConfig(A2CConfig):
    """As A2C's, for every worker; ``n_envs`` are those of one worker."""

    n_workers: int = 2
    """Processes. Set OMP_NUM_THREADS=1 and have a core for each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "n_workers", low=1)
        if self.optimizer != "rmsprop" or self.device != "cpu":
            raise ValueError(
                f"A3C is for the CPU, with RMSprop: got device {self.device!r}, optimizer {self.optimizer!r}"
            )
        if self.normalize:
            raise ValueError("normalize: A3C shares parameters alone, and no statistics; a2c has this option")
        if self.env.vectorization == "async":
            raise ValueError(
                "vectorization: expected auto, sync or vector_entry_point for A3C, got async: its workers "
                "are processes already, and start none of their own"
            )


@dataclass
class Shared:
    """What all processes see: tensors in shared memory, and the steps done."""

    parameters: Tensor
    square_avg: Tensor
    steps: Any  # multiprocessing's Value
    heartbeats: Tensor  # int64 [n_workers]: each worker counts its steps up; 0 until it makes its environments


class A3C(Agent):
    """Workers start with the first :meth:`iterate`; ``envs.close()`` ends them.

    Where a script uses this, its own start belongs under ``if __name__ == "__main__":``, because every worker imports
    the script anew.

    Raises:
        UserError: spaces that no network covers.
        EnvError: in :meth:`iterate`: the environment of a worker failed, or a worker died or made no step for
            ``env.step_timeout`` seconds. The other workers are then ended.
    """

    envs: Workers

    def __init__(self, config: A3CConfig) -> None:
        self.config = config
        check_memory("n_workers", config.n_workers * PROCESS)
        self.learner = A2C(config)  # the parent's copy of the network; its environments are only asked for their spaces
        self.learner.envs.close()
        parameters = self.learner.parameters.detach()
        shared = Shared(
            parameters.clone().share_memory_(),
            torch.zeros_like(parameters).share_memory_(),
            mp.get_context("spawn").Value("q", 0),
            torch.zeros(config.n_workers, dtype=torch.int64).share_memory_(),
        )
        self.shared, self.envs = shared, Workers(config, shared)

    def iterate(self) -> dict[str, Any]:
        """One leg: to the next multiple of LEG, evaluation, checkpoint or the end, whichever comes first."""
        steps, config = self.envs.steps, self.config
        marks = LEG, config.eval_every, config.checkpoint_every
        end = min((steps // mark + 1) * mark for mark in marks)
        measured = self.envs.run(min(end, config.total_steps) if steps < config.total_steps else end)
        self.learner.parameters.data.copy_(self.shared.parameters)
        return measured

    def act(self, observations: np.ndarray) -> np.ndarray:
        return self.learner.act(observations)

    def policy_state(self) -> dict[str, Any]:
        return self.learner.policy_state()

    def load_policy_state(self, state: dict[str, Any]) -> None:
        self.learner.load_policy_state(state)

    def state_dict(self) -> dict[str, Any]:
        """Parameters, RMSprop's statistics and the steps. The workers' episodes are not saved: new ones begin."""
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


class Workers:
    """The processes, as the loop around agents sees environments."""

    def __init__(self, config: A3CConfig, shared: Shared) -> None:
        self.config, self.shared = config, shared
        self.episodes: list[Episode] = []
        self.processes: list[Any] = []
        self.pipes: list[Connection] = []

    @property
    def steps(self) -> int:
        return int(self.shared.steps.value)

    def run(self, until: int) -> dict[str, Any]:
        """Let all workers go on until so many steps are done; what they measured, and their ``cpu_seconds``."""
        if not self.processes:
            self._start()
        try:
            for pipe in self.pipes:
                with contextlib.suppress(BrokenPipeError):  # what has happened there, its report tells
                    pipe.send(until)
            reports = self._reports()
        except BaseException:
            self.close()
            raise
        for _, episodes, _ in reports:
            self.episodes += [Episode(*episode) for episode in episodes]
        names = sorted({name for measured, _, _ in reports for name in measured})
        means = {name: float(np.mean([m[name] for m, _, _ in reports if name in m])) for name in names}
        return means | {"cpu_seconds": sum(seconds for _, _, seconds in reports)}

    def close(self) -> None:
        """End the workers, whatever state they are in."""
        for pipe in self.pipes:
            pipe.close()  # a worker that waits for its next leg ends
        for process in self.processes:
            process.join(timeout=1)
            if process.is_alive():
                process.terminate()
                process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
        self.processes, self.pipes = [], []

    def _start(self) -> None:
        context = mp.get_context("spawn")  # forking a process with threads, as torch has, may hang
        for i in range(self.config.n_workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(i, self.config, self.shared, theirs), daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def _reports(self) -> list[Any]:
        """What each worker sends at the end of its leg; a failed or dead one ends the wait."""
        reports: dict[int, Any] = {}
        watch = Watch(self.shared.heartbeats.numpy(), self.config.env.step_timeout)
        while len(reports) < len(self.pipes):
            pending = [i for i in range(len(self.pipes)) if i not in reports]
            wait([x for i in pending for x in (self.pipes[i], self.processes[i].sentinel)], timeout=watch.period)
            for i in pending:
                dead = not self.processes[i].is_alive()  # asked first: its last words may be in the pipe
                if self.pipes[i].poll() or dead:
                    reports[i] = self._receive(i)
                else:
                    watch.check(i)
        return [reports[i] for i in range(len(self.pipes))]

    def _receive(self, worker: int) -> Any:
        try:
            report = self.pipes[worker].recv()
        except (EOFError, OSError):
            process = self.processes[worker]
            process.join(timeout=5)
            where = f"--env-id {self.config.env_id}: worker process {worker}"
            raise EnvError(f"{where} died ({how_ended(process)})") from None
        if isinstance(report, str):
            raise EnvError(f"worker {worker}: {report}")
        return report


class Watch:
    """Notices a worker that makes no step for ``limit`` seconds, though it is not told to stand still."""

    def __init__(self, heartbeats: np.ndarray, limit: float) -> None:
        self.heartbeats, self.limit, self.period = heartbeats, limit, min(limit / 4, 5.0)
        self.last, self.since = heartbeats.copy(), np.full(len(heartbeats), time.monotonic())

    def check(self, worker: int) -> None:
        """Raises EnvError where the worker has been still for too long. Before its first heartbeat it is starting."""
        now = time.monotonic()
        if self.heartbeats[worker] != self.last[worker] or not self.heartbeats[worker]:
            self.last[worker], self.since[worker] = self.heartbeats[worker], now
        elif now - self.since[worker] > self.limit:
            raise EnvError(
                f"worker process {worker} made no step for {self.limit:g} s, the limit of --step-timeout: "
                "its environment hangs"
            )


def work(worker: int, config: A3CConfig, shared: Shared, pipe: Connection) -> None:
    """A worker process: a leg for every number of steps that comes through the pipe, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends us
    torch.set_num_threads(1)
    seed = derived_seed(config.seed, worker + 1, shared.steps.value)
    heartbeats = shared.heartbeats.numpy()

    def beat() -> None:
        heartbeats[worker] += 1

    try:
        beat()
        learner = A2C(dataclasses.replace(config, seed=seed))
        learner.envs.heartbeat = beat
        try:
            for until in targets(pipe):
                began = process_time()
                measured = leg(learner, shared, until)
                episodes = [tuple(episode) for episode in learner.envs.episodes]
                learner.envs.episodes.clear()
                pipe.send((measured, episodes, process_time() - began))
        finally:
            learner.envs.close()
    except UserError as error:
        with contextlib.suppress(BrokenPipeError):  # another worker failed before, and the parent has gone on
            pipe.send(str(error))
    except BrokenPipeError:
        pass  # the parent is gone


def targets(pipe: Connection) -> Iterator[int]:
    try:
        while True:
            yield pipe.recv()
    except (EOFError, ConnectionResetError):
        return


def leg(learner: A2C, shared: Shared, until: int) -> dict[str, float]:
    """Updates of the shared parameters until so many steps are done; means of what they measured."""
    config = learner.config
    parameters = nn.Parameter(shared.parameters)
    parameters.grad = learner.parameters.grad
    optimizer = make_optimizer(config, parameters)
    optimizer.state[parameters] = {"step": torch.zeros(()), "square_avg": shared.square_avg}
    sums: dict[str, Any] = defaultdict(float)
    updates = 0
    while shared.steps.value < until:
        before = learner.envs.steps
        learner.parameters.data.copy_(shared.parameters)
        for name, value in learner.accumulate_gradient().items():
            sums[name] += value
        with shared.steps.get_lock():
            shared.steps.value += learner.envs.steps - before
        if config.lr_decay:
            optimizer.param_groups[0]["lr"] = config.lr * max(0.0, 1 - shared.steps.value / config.total_steps)
        optimizer.step()
        updates += 1
    return {name: float(total) / updates for name, total in sums.items()}


def train(
    config: A3CConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train in a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("a3c", A3C, config, out, resume, stop_after)
